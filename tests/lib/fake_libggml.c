/* SPDX-License-Identifier: Apache-2.0
 *
 * libggml.so and libggml-base.so for tests of whole programs: the plain memory of fake_ggml.c under
 * the names of the real functions.  Its environment decides what there is:
 *
 *   FAKE_GGML_GPU=1      a GPU "Fake1" beside the CPU "Fake"
 *   FAKE_GGML_TWIN=1     that second device is of the CPU, too
 *   FAKE_GGML_CARD=ID    all devices are on this card
 *   FAKE_GGML_DIES=1     opening a device ends the process
 *   FAKE_GGML_MS=N       a graph takes as long, without the processor
 *   FAKE_GGML_HOSTILE=1  a graph of a single node writes over the ledger of the card
 *   FAKE_GGML_STUCK=1    a graph of a single node is computed for ever
 *   FAKE_GGML_LINE=TEXT  written to standard error when loaded */
#include "fake_ggml.c"

#include <stdio.h>

#include "base/compiler.h"

static size_t lib_ggml_backend_dev_count(void)
{
	return getenv("FAKE_GGML_GPU") || getenv("FAKE_GGML_TWIN") ? 2 : 1;
}

static struct ggml_backend_device *lib_ggml_backend_dev_get(size_t i)
{
	static char devices[2];

	return (struct ggml_backend_device *)&devices[i];
}

/* The GPU comes second, so that the order the broker gives is its own. */
static int lib_ggml_backend_dev_type(struct ggml_backend_device *d)
{
	bool gpu = d != lib_ggml_backend_dev_get(0) && !getenv("FAKE_GGML_TWIN");

	return gpu ? GGML_DEVICE_GPU : GGML_DEVICE_CPU;
}

static void lib_ggml_backend_dev_get_props(struct ggml_backend_device *d,
					   struct ggml_device_props *props)
{
	(void)d;
	*props = (struct ggml_device_props){.device_id = getenv("FAKE_GGML_CARD")};
}

static const char *lib_ggml_backend_dev_name(struct ggml_backend_device *d)
{
	return d == lib_ggml_backend_dev_get(0) ? "Fake" : "Fake1";
}

static struct ggml_backend_buffer_type *
lib_ggml_backend_dev_buffer_type(struct ggml_backend_device *d)
{
	if (getenv("FAKE_GGML_DIES"))
		_Exit(3);
	return fake_ggml_backend_dev_buffer_type(d);
}

/* What a vendor's library could do once a guest has taken it over.  The lock is left free, so that
 * a test need not wait for those who lose patience with it. */
static void scribble(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long start, end;
	char line[512];

	while (maps && fgets(line, sizeof(line), maps)) {
		if (!strstr(line, "pillion-ledger") || sscanf(line, "%lx-%lx", &start, &end) != 2)
			continue;
		for (uint32_t *word = (uint32_t *)start; word < (uint32_t *)end; word++)
			*word = (uint32_t)random() * 2654435761u;
		*(uint32_t *)start = 0;
	}
	if (maps)
		fclose(maps);
}

static int lib_ggml_backend_graph_compute(struct ggml_backend *b, struct ggml_cgraph *g)
{
	const char *ms = getenv("FAKE_GGML_MS");

	if (getenv("FAKE_GGML_HOSTILE") && g->n_nodes == 1)
		scribble();
	if (ms)
		usleep((useconds_t)strtoul(ms, NULL, 10) * 1000);
	while (getenv("FAKE_GGML_STUCK") && g->n_nodes == 1)
		usleep(10000);
	return fake_ggml_backend_graph_compute(b, g);
}

static void lib_ggml_backend_load_all_from_path(const char *path)
{
	if (getenv("FAKE_GGML_LINE"))
		fprintf(stderr, "%s: %s\n", path, getenv("FAKE_GGML_LINE"));
}

#define fake_ggml_backend_dev_count          lib_ggml_backend_dev_count
#define fake_ggml_backend_dev_get            lib_ggml_backend_dev_get
#define fake_ggml_backend_dev_type           lib_ggml_backend_dev_type
#define fake_ggml_backend_dev_get_props      lib_ggml_backend_dev_get_props
#define fake_ggml_backend_dev_name           lib_ggml_backend_dev_name
#define fake_ggml_backend_dev_buffer_type    lib_ggml_backend_dev_buffer_type
#define fake_ggml_backend_load_all_from_path lib_ggml_backend_load_all_from_path
#define fake_ggml_backend_graph_compute      lib_ggml_backend_graph_compute

#define TEXT(x)                 TEXT_(x)
#define TEXT_(x)                #x
#define EXPORT(ret, name, args) ret name args PIL_EXPORT __attribute__((alias(TEXT(fake_##name))));
GGML_API_FUNCTIONS(EXPORT)
