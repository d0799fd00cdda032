/* SPDX-License-Identifier: Apache-2.0 */
#include "api/ggml/tensor_ops.h"
#include "exec/ggml/commands.h"
#include "lib/fake_ggml.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct ggml_backend_buffer_type {
	bool extra;
};
struct ggml_backend_buffer {
	struct ggml_backend_buffer_type *type;
	char *base;
	size_t bytes;
};
struct ggml_context {
	struct ggml_tensor *tensors[70000];
	int n;
	struct ggml_cgraph graph;
};
struct ggml_backend_device {
	int dummy;
};
struct ggml_backend {
	bool (*must_stop)(void *);
	void *must_stop_arg;
};

int fake_compute_ms;
size_t fake_memory_bytes = FAKE_MEMORY_BYTES;
char fake_last_name[64];
unsigned fake_graphs_computed, fake_last_n_nodes, fake_weights_placed;

static struct ggml_backend_buffer_type plain_type, extra_type = {.extra = true};
static struct ggml_backend_buffer_type *extra_types[] = {&extra_type, NULL};

static const char *fake_ggml_version(void)
{
	return "0.27.0";
}

static const char *fake_ggml_op_name(int op)
{
	return op < WIRE_NUM_TENSOR_OPS ? wire_tensor_op_str[op] : "CUSTOM";
}

static const char *fake_ggml_unary_op_name(int op)
{
	return wire_unary_op_str[op];
}

static const char *fake_ggml_glu_op_name(int op)
{
	return wire_glu_op_str[op];
}

static int64_t fake_ggml_blck_size(int type)
{
	return type == 8 || type == 2 ? 32 : 1;
}

static size_t fake_ggml_type_size(int type)
{
	switch (type) {
	case 1:
	case 25:
	case 30:
		return 2;
	case 2:
		return 18;
	case 8:
		return 34;
	case GGML_T_I8:
		return 1;
	case GGML_T_I64:
	case 28:
		return 8;
	default:
		return 4;
	}
}

static size_t fake_ggml_nbytes(const struct ggml_tensor *t)
{
	return t->nb[3] * (size_t)t->ne[3];
}

static struct ggml_context *fake_ggml_init(struct ggml_init_params params)
{
	(void)params;
	return calloc(1, sizeof(struct ggml_context));
}

static void fake_ggml_free(struct ggml_context *c)
{
	for (int i = 0; i < c->n; i++)
		free(c->tensors[i]);
	free(c->graph.nodes);
	free(c);
}

static size_t fake_ggml_tensor_overhead(void)
{
	return sizeof(struct ggml_tensor);
}

static size_t fake_ggml_graph_overhead_custom(size_t n, bool grads)
{
	(void)grads;
	return n * 8;
}

static struct ggml_cgraph *fake_ggml_new_graph_custom(struct ggml_context *c, size_t n, bool grads)
{
	(void)grads;
	c->graph.nodes = calloc(n, sizeof(void *));
	c->graph.size = (int)n;
	return &c->graph;
}

static struct ggml_tensor *fake_ggml_new_tensor(struct ggml_context *c, int type, int n_dims,
						const int64_t *ne)
{
	struct ggml_tensor *t = calloc(1, sizeof(*t));

	(void)n_dims;
	t->type = type;
	t->ne[0] = ne[0];
	c->tensors[c->n++] = t;
	return t;
}

static void fake_ggml_build_forward_expand(struct ggml_cgraph *g, struct ggml_tensor *t)
{
	g->nodes[g->n_nodes++] = t;
}

static void fake_ggml_backend_load_all(void)
{
}

static void fake_ggml_backend_load_all_from_path(const char *path)
{
	(void)path;
}

static size_t fake_ggml_backend_dev_count(void)
{
	return 1;
}

static struct ggml_backend_device *fake_ggml_backend_dev_get(size_t i)
{
	static struct ggml_backend_device the_device;

	(void)i;
	return &the_device;
}

static const char *fake_ggml_backend_dev_name(struct ggml_backend_device *d)
{
	(void)d;
	return "Fake";
}

static const char *fake_ggml_backend_dev_description(struct ggml_backend_device *d)
{
	(void)d;
	return "plain memory";
}

static void fake_ggml_backend_dev_memory(struct ggml_backend_device *d, size_t *free_bytes,
					 size_t *total)
{
	(void)d;
	*free_bytes = *total = fake_memory_bytes;
}

static void fake_ggml_backend_dev_get_props(struct ggml_backend_device *d,
					    struct ggml_device_props *props)
{
	(void)d;
	*props = (struct ggml_device_props){0};
}

static int fake_ggml_backend_dev_type(struct ggml_backend_device *d)
{
	(void)d;
	return GGML_DEVICE_CPU;
}

static struct ggml_backend_reg *fake_ggml_backend_dev_backend_reg(struct ggml_backend_device *d)
{
	(void)d;
	return NULL;
}

static struct ggml_backend *fake_ggml_backend_dev_init(struct ggml_backend_device *d,
						       const char *params)
{
	(void)d;
	(void)params;
	return calloc(1, sizeof(struct ggml_backend));
}

static struct ggml_backend_buffer_type *
fake_ggml_backend_dev_buffer_type(struct ggml_backend_device *d)
{
	(void)d;
	return &plain_type;
}

static bool fake_ggml_backend_dev_supports_op(struct ggml_backend_device *d,
					      const struct ggml_tensor *op)
{
	(void)d;
	return !op->src[0] || !op->src[0]->buffer || !op->src[0]->buffer->type->extra ||
	       op->src[0]->ne[2] == 1;
}

static bool fake_ggml_backend_dev_offload_op(struct ggml_backend_device *d,
					     const struct ggml_tensor *op)
{
	(void)d;
	return op->ne[1] >= 32;
}

static struct ggml_backend_buffer_type **get_extra(struct ggml_backend_device *d)
{
	(void)d;
	return extra_types;
}

static void set_abort_callback(struct ggml_backend *b, bool (*must_stop)(void *), void *arg)
{
	b->must_stop = must_stop;
	b->must_stop_arg = arg;
}

static void *fake_ggml_backend_reg_get_proc_address(struct ggml_backend_reg *r, const char *name)
{
	struct ggml_backend_buffer_type **(*f)(struct ggml_backend_device *) = get_extra;
	void (*set_abort)(struct ggml_backend *, bool (*)(void *), void *) = set_abort_callback;
	void *p = NULL;

	(void)r;
	if (!strcmp(name, "ggml_backend_set_abort_callback"))
		memcpy(&p, &set_abort, sizeof(p));
	if (!strcmp(name, "ggml_backend_dev_get_extra_bufts"))
		memcpy(&p, &f, sizeof(p));
	return p;
}

static struct ggml_backend_buffer *
fake_ggml_backend_buft_alloc_buffer(struct ggml_backend_buffer_type *type, size_t n)
{
	struct ggml_backend_buffer *b = calloc(1, sizeof(*b));

	b->type = type;
	b->bytes = n;
	b->base = aligned_alloc(64, (n + 64) & ~(size_t)63);
	memset(b->base, 0x5a, n); /* as if it had been somebody else's */
	return b;
}

static size_t fake_ggml_backend_buft_get_alignment(struct ggml_backend_buffer_type *t)
{
	(void)t;
	return 32;
}

static size_t fake_ggml_backend_buft_get_max_size(struct ggml_backend_buffer_type *t)
{
	(void)t;
	return (size_t)32 << 20;
}

static size_t fake_ggml_backend_buft_get_alloc_size(struct ggml_backend_buffer_type *t,
						    const struct ggml_tensor *x)
{
	(void)t;
	return fake_ggml_nbytes(x) +
	       (x->ne[1] == 7 ? 64 : 0); /* one odd shape asks for more room */
}

static bool fake_ggml_backend_buft_is_host(struct ggml_backend_buffer_type *t)
{
	return !t->extra;
}

static void fake_ggml_backend_buffer_free(struct ggml_backend_buffer *b)
{
	free(b->base);
	free(b);
}

static void *fake_ggml_backend_buffer_get_base(struct ggml_backend_buffer *b)
{
	return b->base;
}

static int fake_ggml_backend_buffer_init_tensor(struct ggml_backend_buffer *b,
						struct ggml_tensor *t)
{
	t->extra = b->type;
	return 0;
}

static void fake_ggml_backend_buffer_clear(struct ggml_backend_buffer *b, uint8_t v)
{
	memset(b->base, v, b->bytes);
}

static void fake_ggml_backend_buffer_set_usage(struct ggml_backend_buffer *b, int usage)
{
	(void)b;
	(void)usage;
}

static void fake_ggml_backend_tensor_set(struct ggml_tensor *t, const void *data, size_t off,
					 size_t n)
{
	if (t->buffer->type->extra)
		fake_weights_placed++;
	memcpy((char *)t->data + off, data, n);
}

static void fake_ggml_backend_tensor_get(const struct ggml_tensor *t, void *data, size_t off,
					 size_t n)
{
	memcpy(data, (char *)t->data + off, n);
}

static void fake_ggml_backend_tensor_memset(struct ggml_tensor *t, uint8_t v, size_t off, size_t n)
{
	memset((char *)t->data + off, v, n);
}

static int fake_ggml_backend_graph_compute(struct ggml_backend *b, struct ggml_cgraph *g)
{
	int limit_ms = fake_compute_ms;

	fake_last_n_nodes = (unsigned)g->n_nodes;
	if (g->n_nodes)
		memcpy(fake_last_name, g->nodes[g->n_nodes - 1]->name, sizeof(fake_last_name));
	__atomic_add_fetch(&fake_graphs_computed, 1, __ATOMIC_SEQ_CST);
	for (int ms = 0; ms < limit_ms; ms++) {
		if (b->must_stop(b->must_stop_arg))
			return 1;
		usleep(1000);
	}
	return 0;
}

static void fake_ggml_backend_free(struct ggml_backend *b)
{
	free(b);
}

struct gg_device *fake_device_new(void)
{
	struct ggml_host *host = calloc(1, sizeof(*host));
	struct gg_device *device = NULL;
	struct card *card;

	host->api = (struct ggml_api){
#define FAKE_ENTRY(ret, name, args) .name = fake_##name,
		GGML_API_FUNCTIONS(FAKE_ENTRY)
#undef FAKE_ENTRY
	};
	for (int i = 0; i < WIRE_NUM_TENSOR_OPS; i++)
		host->op_to_host[i] = i;
	for (int i = 0; i < WIRE_NUM_UNARY_OPS; i++)
		host->unary_to_host[i] = i;
	for (int i = 0; i < WIRE_NUM_GLU_OPS; i++)
		host->glu_to_host[i] = i;
	for (int i = 0; i < 43; i++) {
		host->types.block[i] = (uint32_t)fake_ggml_blck_size(i);
		host->types.bytes[i] = (uint32_t)fake_ggml_type_size(i);
	}
	if (card_create(&card, -1, 0, NULL) || gg_device_open(&device, host, "Fake", card, NULL))
		abort();
	return device;
}

int fake_session_start(struct gg_device *device, const struct session_opts *opts)
{
	return session_start(&exec_api_ggml, device, device->card, opts, NULL);
}

void fake_device_free(struct gg_device *device)
{
	struct ggml_host *host = device->host;

	card_destroy(device->card);
	gg_device_destroy(device);
	free(host);
}
