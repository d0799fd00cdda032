/* SPDX-License-Identifier: Apache-2.0
 *
 * ggml as an API of the executor (exec/api.h): its devices, how a session begins and ends, and its
 * memory.  The commands about graphs are in commands.c. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "exec/ggml/commands.h"

#define REFERENCE_NAME "CPU" /* what ggml calls the host's processors */

/* ---- the library and its devices ---- */

/* ggml loads every back end it finds; for the reference device the Vulkan loader need not load its
 * drivers as well (Mesa's bring LLVM: 25 MiB). */
static void spare_gpu_drivers(void)
{
	setenv("VK_LOADER_DRIVERS_DISABLE", "*", 1);
	setenv("VK_LOADER_LAYERS_DISABLE", "*", 1);
}

static int load(void **host, const struct exec_opts *opts, struct pil_err *err)
{
	struct ggml_host *loaded;
	int ret;

	if (opts->device && !strcmp(opts->device, REFERENCE_NAME))
		spare_gpu_drivers();
	ret = ggml_host_load(&loaded, opts->lib_dir, err);
	if (!ret)
		*host = loaded;
	return ret;
}

static int devices(void *host, struct wire_device *out, int max)
{
	return ggml_host_devices(host, out, max);
}

static int open_device(void **dev, void *host, const char *name, struct card *card,
		       struct pil_err *err)
{
	struct gg_device *device;
	int ret = gg_device_open(&device, host, name, card, err);

	if (!ret)
		*dev = device;
	return ret;
}

/* ---- a session ---- */

static int open_backend(struct gg_session *g)
{
	typedef void (*set_n_threads_fn)(struct ggml_backend *, int);
	typedef void (*set_abort_fn)(struct ggml_backend *, bool (*)(void *), void *);
	const struct ggml_api *api = &g->device->host->api;
	struct ggml_backend_reg *reg = api->ggml_backend_dev_backend_reg(g->device->dev);
	set_n_threads_fn set_n_threads;
	set_abort_fn set_abort;
	void *f;

	g->backend = api->ggml_backend_dev_init(g->device->dev, NULL);
	if (!g->backend)
		return -ENODEV;
	f = api->ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads");
	memcpy(&set_n_threads, &f, sizeof(f));
	if (set_n_threads)
		set_n_threads(g->backend, g->device->n_threads);
	f = api->ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_abort_callback");
	memcpy(&set_abort, &f, sizeof(f));
	if (set_abort)
		set_abort(g->backend, session_must_stop, g->s);
	runner_init(&g->runner, g->device, &g->s->turn);
	g->runner.backend = g->backend;
	g->runner.must_stop = session_must_stop;
	g->runner.ctx = g->s;
	return 0;
}

static void *pass(void *gate)
{
	pthread_mutex_lock(gate);
	pthread_mutex_unlock(gate);
	return NULL;
}

/* Can there be the threads, all at a time, that compute for this session?  What starts them, OpenMP
 * or ggml, ends the process where it cannot. */
static bool team_possible(const struct gg_device *device)
{
	int n = device->reference ? device->n_threads - 1 : 0, n_made = 0; /* one is this one */
	pthread_t *made = calloc((size_t)n + 1, sizeof(*made));
	pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

	pthread_mutex_lock(&gate);
	while (made && n_made < n && pthread_create(&made[n_made], NULL, pass, &gate) == 0)
		n_made++;
	pthread_mutex_unlock(&gate);
	for (int i = 0; i < n_made; i++)
		pthread_join(made[i], NULL);
	free(made);
	return made && n_made == n;
}

static void end(void *state)
{
	struct gg_session *g = state;

	graphs_finish(&g->graphs);
	buffers_finish(&g->buffers);
	if (g->backend)
		g->device->host->api.ggml_backend_free(g->backend);
	free(g);
}

static enum wire_status begin(void **state, struct session *s, void *dev)
{
	struct gg_session *g;

	if (!team_possible(dev)) {
		log_warn("session of %s: no threads to compute with: refused", s->program);
		return WIRE_E_BUSY;
	}
	g = calloc(1, sizeof(*g));
	if (!g)
		return WIRE_E_NO_MEMORY;
	g->s = s;
	g->device = dev;
	g->followed_cpu = -1;
	sched_getaffinity(0, sizeof(g->all_cpus), &g->all_cpus);
	buffers_init(&g->buffers, dev, s->account);
	graphs_init(&g->graphs, dev, &g->buffers);
	if (open_backend(g)) {
		end(g);
		return WIRE_E_EXECUTOR;
	}
	*state = g;
	return WIRE_OK;
}

static void welcome(void *state, struct wire_welcome *w, void *body)
{
	const struct gg_device *d = ((struct gg_session *)state)->device;
	struct gg_welcome *g = body;

	w->alignment = d->alignment;
	w->max_buffer = d->max_buffer;
	if (d->reference)
		g->flags |= GG_WELCOME_PLAIN_SIZE;
	graphs_known_ops(d->host, g);
	for (uint32_t i = 0; i < WIRE_MAX_TYPES; i++)
		if (d->host->types.block[i])
			g->types[g->n_types++] = (struct wire_type){i, d->host->types.block[i],
								    d->host->types.bytes[i], 0};
}

static const char *fault(void *state)
{
	return buffers_fault(&((struct gg_session *)state)->buffers);
}

/* ---- memory ---- */

static struct buffers *buffers_of(void *state)
{
	return &((struct gg_session *)state)->buffers;
}

static enum wire_status mem_alloc(void *state, uint32_t handle, uint64_t bytes)
{
	return buffers_alloc(buffers_of(state), handle, bytes);
}

static bool mem_free(void *state, uint32_t handle)
{
	return buffers_free(buffers_of(state), handle);
}

static void *mem_find(void *state, uint32_t handle, uint64_t *bytes)
{
	struct gg_buffer *buffer = buffers_find(buffers_of(state), handle);

	if (buffer)
		*bytes = buffer->bytes;
	return buffer;
}

static enum wire_status mem_set(void *state, void *buffer, uint64_t offset, const void *data,
				uint64_t bytes)
{
	return gg_buffer_set(buffers_of(state), buffer, offset, data, bytes);
}

static enum wire_status mem_get(void *state, void *buffer, uint64_t offset, void *data,
				uint64_t bytes)
{
	return gg_buffer_get(buffers_of(state), buffer, offset, data, bytes);
}

static enum wire_status mem_fill(void *state, void *buffer, uint64_t offset, uint8_t value,
				 uint64_t bytes)
{
	return gg_buffer_fill(buffers_of(state), buffer, offset, value, bytes);
}

/* Weights may lie elsewhere, and moved by the next command. */
static const void *mem_peek(void *state, void *buffer, uint64_t offset, uint64_t bytes)
{
	if (((struct gg_buffer *)buffer)->n_weights)
		return NULL;
	return gg_buffer_peek(buffers_of(state), buffer, offset, bytes);
}

static void *mem_direct(void *state, void *buffer, uint64_t offset, uint64_t bytes)
{
	return gg_buffer_direct(buffers_of(state), buffer, offset, bytes);
}

static void mem_received(void *state, void *buffer, uint64_t offset, uint64_t bytes)
{
	gg_buffer_received(buffers_of(state), buffer, offset, bytes);
}

static enum wire_status mem_set_file(void *state, void *buffer, uint64_t offset,
				     struct file_map *file, uint64_t file_offset, uint64_t bytes)
{
	return gg_buffer_set_file(buffers_of(state), buffer, offset, file, file_offset, bytes);
}

/* A whole buffer at once, if it is that; and nothing at all where part cannot be. */
static bool mem_fill_at_once(void *state, void *buffer, uint64_t offset, uint64_t bytes)
{
	return !((struct gg_session *)state)->device->host_memory ||
	       gg_buffer_touches_placed(buffer, offset, bytes);
}

static const struct mem_ops mem = {
	.alloc = mem_alloc,
	.free = mem_free,
	.find = mem_find,
	.set = mem_set,
	.get = mem_get,
	.fill = mem_fill,
	.peek = mem_peek,
	.direct = mem_direct,
	.received = mem_received,
	.set_file = mem_set_file,
	.fill_at_once = mem_fill_at_once,
};

const struct exec_api exec_api_ggml = {
	.wire = &wire_api_ggml,
	.load = load,
	.devices = devices,
	.open = open_device,
	.mem = &mem,
	.begin = begin,
	.welcome = welcome,
	.command = gg_command,
	.is_long = gg_command_is_long,
	.fault = fault,
	.end = end,
};
