/* SPDX-License-Identifier: Apache-2.0
 *
 * query.c -- see query.h.  A question is known by a 128-bit hash of all that is sent of it, not by
 * its text: the cache stays small, and nobody but the program itself chooses the questions. */
#include "guest/ggml/query.h"

#include <stdlib.h>
#include <string.h>

#include "guest/ggml/opmap.h"
#include "link/channel.h"

/* ---- hashing ---- */

struct mix {
	uint64_t a, b;
};

static void mix_word(struct mix *m, uint64_t w)
{
	m->a = (m->a ^ w) * 0x9e3779b97f4a7c15u;
	m->a ^= m->a >> 29;
	m->b = (m->b + w) * 0xd6e8feb86659fd93u;
	m->b ^= m->b >> 32;
}

static void mix_shape(struct mix *m, const struct ggml_tensor *t)
{
	mix_word(m, (uint64_t)(uint32_t)t->type);
	for (int i = 0; i < ABI_MAX_DIMS; i++) {
		mix_word(m, (uint64_t)t->ne[i]);
		mix_word(m, t->nb[i]);
	}
}

static struct mix mix_question(const struct ggml_tensor *op)
{
	struct mix m = {1, 2};

	mix_word(&m, (uint64_t)(uint32_t)op->op << 32 | (uint32_t)(op->flags & ABI_FLAGS));
	mix_shape(&m, op);
	for (int i = 0; i < ABI_MAX_PARAMS; i += 2) {
		uint64_t w;

		memcpy(&w, &op->op_params[i], sizeof(w));
		mix_word(&m, w);
	}
	for (int i = 0; i < ABI_MAX_SRC; i++) {
		if (!op->src[i])
			continue;
		mix_word(&m, (uint64_t)i + 1);
		mix_shape(&m, op->src[i]);
	}
	m.a |= 1; /* never the empty entry */
	return m;
}

static uint64_t hash_name(const char *name)
{
	uint64_t h = 0xcbf29ce484222325u;

	for (int i = 0; i < ABI_MAX_NAME && name[i]; i++)
		h = (h ^ (uint8_t)name[i]) * 0x100000001b3u;
	return h | 1;
}

static struct query_entry *find(struct query_entry *table, struct mix m)
{
	uint32_t i = (uint32_t)(m.b % QUERY_ENTRIES);

	while (table[i].hash[0] && (table[i].hash[0] != m.a || table[i].hash[1] != m.b))
		i = (i + 1) % QUERY_ENTRIES;
	return &table[i];
}

/* Stores an answer; a table that gets full starts again. */
static void keep(struct query_entry *table, uint32_t *n, struct mix m, uint64_t value)
{
	struct query_entry *e;

	if (*n >= QUERY_ENTRIES / 4 * 3) {
		memset(table, 0, QUERY_ENTRIES * sizeof(*table));
		*n = 0;
	}
	e = find(table, m);
	if (!e->hash[0])
		(*n)++;
	*e = (struct query_entry){{m.a, m.b}, value};
}

/* ---- asking ---- */

static bool types_match(const struct query *q, const struct ggml_tensor *op)
{
	if (op->type < 0 || op->type >= ABI_NUM_TYPES || !q->types[op->type])
		return false;
	for (int i = 0; i < ABI_MAX_SRC; i++) {
		const struct ggml_tensor *s = op->src[i];

		if (s && (s->type < 0 || s->type >= ABI_NUM_TYPES || !q->types[s->type]))
			return false;
	}
	return true;
}

/* One round trip.  False if it cannot be asked or the channel is dead. */
static bool ask(struct channel *chan, const struct opmap *map, enum gg_op what,
		const struct ggml_tensor *op, uint64_t *value)
{
	struct {
		struct wire_supports head;
		struct wire_tensor t[1 + WIRE_MAX_SRC];
	} msg;
	struct wire_answer answer;
	struct wire_tensor last;
	uint32_t n = 0;

	if (!opmap_encode(map, op, &last))
		return false;
	memset(last.name, 0, sizeof(last.name));
	for (int i = 0; i < ABI_MAX_SRC; i++) {
		if (!op->src[i])
			continue;
		if (!opmap_encode_leaf(map, op->src[i], &msg.t[n]))
			return false;
		memset(msg.t[n].name, 0, sizeof(msg.t[n].name));
		last.src[i] = ++n;
	}
	last.flags |= WIRE_TENSOR_NODE;
	msg.t[n++] = last;
	msg.head = (struct wire_supports){.n_tensors = n};
	if (channel_call(chan, what, &msg.head, msg.t, n * (uint32_t)sizeof(msg.t[0]), NULL,
			 &answer) != WIRE_OK)
		return false;
	*value = answer.value;
	return true;
}

static bool op_allowed(const struct gg_welcome *w, const struct opmap *map,
		       const struct ggml_tensor *op, int number)
{
	struct wire_tensor t;

	if (number < 0 || !wire_bit(w->ops, (uint32_t)number))
		return false;
	if (number != WIRE_T_UNARY && number != WIRE_T_GLU)
		return true;
	return opmap_encode(map, op, &t) &&
	       wire_bit(number == WIRE_T_GLU ? w->glu : w->unary, (uint32_t)t.params[0]);
}

uint32_t query_supports(struct query *q, struct channel *chan, const struct opmap *map,
			const struct ggml_tensor *op)
{
	int number = opmap_op(map, op->op);
	struct query_entry *e;
	uint64_t value = 0;
	struct mix m;

	if (number == WIRE_T_NONE || number == WIRE_T_RESHAPE || number == WIRE_T_VIEW ||
	    number == WIRE_T_PERMUTE || number == WIRE_T_TRANSPOSE)
		return QUERY_YES;
	if (!types_match(q, op) || !op_allowed(gg_welcome_of(chan), map, op, number))
		return QUERY_NO;
	m = mix_question(op);
	e = find(q->supports, m);
	if (e->hash[0])
		return (uint32_t)e->value;
	if (!ask(chan, map, GG_OP_SUPPORTS, op, &value)) {
		if (chan->dead)
			return QUERY_YES; /* ggml aborts on a "no" for a tensor we hold */
		value = QUERY_NO;
	}
	value &= QUERY_YES | QUERY_OFFLOAD;
	if (!(value & QUERY_YES))
		value = QUERY_NO;
	keep(q->supports, &q->n_supports, m, value);
	return (uint32_t)value;
}

uint64_t query_alloc_size(struct query *q, struct channel *chan, const struct opmap *map,
			  const struct ggml_tensor *tensor)
{
	uint64_t plain = opmap_nbytes(map, tensor), value;
	struct query_entry *e;
	struct mix m;

	if (gg_welcome_of(chan)->flags & GG_WELCOME_PLAIN_SIZE || chan->dead)
		return plain;
	m = mix_question(tensor);
	e = find(q->sizes, m);
	if (e->hash[0])
		return e->value;
	if (!ask(chan, map, GG_OP_ALLOC_SIZE, tensor, &value) || value < plain)
		value = plain;
	keep(q->sizes, &q->n_sizes, m, value);
	return value;
}

/* ---- what weights are for ---- */

static struct query_use *find_use(struct query_use *uses, uint32_t max, uint64_t name)
{
	uint32_t i = (uint32_t)(name >> 20) & (max - 1);

	while (uses[i].name && uses[i].name != name)
		i = (i + 1) & (max - 1);
	return &uses[i];
}

static bool grow_uses(struct query *q)
{
	uint32_t max = q->max_uses ? q->max_uses * 2 : 1024;
	struct query_use *bigger = calloc(max, sizeof(*bigger));

	if (!bigger)
		return false;
	for (uint32_t i = 0; i < q->max_uses; i++)
		if (q->uses[i].name)
			*find_use(bigger, max, q->uses[i].name) = q->uses[i];
	free(q->uses);
	q->uses = bigger;
	q->max_uses = max;
	return true;
}

void query_note_use(struct query *q, const char *name, enum wire_tensor_op op)
{
	uint64_t h = hash_name(name);
	struct query_use *use;

	if (!name[0] || (q->n_uses * 2 >= q->max_uses && !grow_uses(q)))
		return;
	use = find_use(q->uses, q->max_uses, h);
	if (!use->name) {
		use->name = h;
		q->n_uses++;
	}
	use->uses |= op == WIRE_T_MUL_MAT      ? WIRE_USE_MUL_MAT
		     : op == WIRE_T_MUL_MAT_ID ? WIRE_USE_MUL_MAT_ID
					       : WIRE_USE_OTHER;
}

uint32_t query_uses(const struct query *q, const char *name)
{
	return q->max_uses ? find_use(q->uses, q->max_uses, hash_name(name))->uses : 0;
}

/* ---- life ---- */

bool query_init(struct query *q, const struct opmap *map, const struct gg_welcome *welcome)
{
	memset(q, 0, sizeof(*q));
	for (uint32_t i = 0; i < welcome->n_types; i++) {
		const struct wire_type *t = &welcome->types[i];

		if (t->type < ABI_NUM_TYPES && map->block[t->type] &&
		    map->block[t->type] == t->block && map->bytes[t->type] == t->bytes)
			q->types[t->type] = true;
	}
	q->supports = calloc(QUERY_ENTRIES, sizeof(*q->supports));
	q->sizes = calloc(QUERY_ENTRIES, sizeof(*q->sizes));
	if (q->supports && q->sizes)
		return true;
	query_finish(q);
	return false;
}

void query_finish(struct query *q)
{
	free(q->supports);
	free(q->sizes);
	free(q->uses);
	memset(q, 0, sizeof(*q));
}
