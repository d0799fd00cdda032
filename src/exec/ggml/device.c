/* SPDX-License-Identifier: Apache-2.0
 *
 * Opens a device and asks ggml once what all sessions need to know of it.
 */
#include "exec/ggml/device.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"

/* Physical cores, as llama.cpp counts them for its own default: one per set of thread siblings. */
static int count_cores(void)
{
	long n_cpus = sysconf(_SC_NPROCESSORS_CONF);
	int cores = 0;

	for (long cpu = 0; cpu < n_cpus; cpu++) {
		_auto_free char *path =
			str_printf("/sys/devices/system/cpu/cpu%ld/topology/thread_siblings_list",
				   cpu);
		_auto_free char *siblings = NULL;

		if (pil_read_file(path, 4096, &siblings) > 0 && strtol(siblings, NULL, 10) == cpu)
			cores++;
	}
	return cores > 0 ? cores : (int)(n_cpus > 0 ? n_cpus : 1);
}

static void find_extra_types(struct gg_device *d)
{
	typedef struct ggml_backend_buffer_type **(*get_extra_fn)(struct ggml_backend_device *);
	const struct ggml_api *api = &d->host->api;
	void *f = api->ggml_backend_reg_get_proc_address(api->ggml_backend_dev_backend_reg(d->dev),
							 "ggml_backend_dev_get_extra_bufts");
	struct ggml_backend_buffer_type **types;
	get_extra_fn get_extra;

	memcpy(&get_extra, &f, sizeof(f));
	types = get_extra ? get_extra(d->dev) : NULL;
	for (; types && *types && d->n_extra < DEVICE_MAX_EXTRA; types++) {
		d->extra[d->n_extra] = *types;
		d->extra_probe[d->n_extra] = api->ggml_backend_buft_alloc_buffer(*types, 0);
		if (d->extra_probe[d->n_extra])
			d->n_extra++;
	}
}

static struct ggml_backend_device *find_device(const struct ggml_api *api, const char *name)
{
	for (size_t i = 0; i < api->ggml_backend_dev_count(); i++)
		if (!strcmp(api->ggml_backend_dev_name(api->ggml_backend_dev_get(i)), name))
			return api->ggml_backend_dev_get(i);
	return NULL;
}

static void memory_of(void *ctx, uint64_t *free_bytes, uint64_t *total_bytes)
{
	struct gg_device *device = ctx;
	size_t f = 0, t = 0;

	device->host->api.ggml_backend_dev_memory(device->dev, &f, &t);
	*free_bytes = f;
	*total_bytes = t;
}

int gg_device_open(struct gg_device **out, struct ggml_host *host, const char *name,
		   struct card *card, struct pil_err *err)
{
	const struct ggml_api *api = &host->api;
	struct ggml_backend_device *dev = find_device(api, name);
	struct gg_device *d;

	if (!dev)
		return pil_err_say(err, ENODEV, "open device '%s': ggml %s does not see it", name,
				   host->version);
	d = calloc(1, sizeof(*d));
	if (!d)
		return pil_err_set(err, ENOMEM, "open device '%s'", name);
	mallopt(M_MMAP_THRESHOLD, DEVICE_MMAP_THRESHOLD); /* fixed: glibc would raise it */
	d->host = host;
	d->dev = dev;
	d->buft = api->ggml_backend_dev_buffer_type(d->dev);
	d->reference = api->ggml_backend_dev_type(d->dev) == GGML_DEVICE_CPU;
	d->host_memory = api->ggml_backend_buft_is_host(d->buft);
	d->alignment = api->ggml_backend_buft_get_alignment(d->buft);
	d->max_buffer = api->ggml_backend_buft_get_max_size(d->buft);
	d->n_threads = count_cores();
	find_extra_types(d);
	d->card = card;
	card_serve(card, memory_of, d, d->reference);
	log_info("device %s: %s, ggml %s, %d extra buffer types", name,
		 api->ggml_backend_dev_description(d->dev), host->version, d->n_extra);
	*out = d;
	return 0;
}

void gg_device_destroy(struct gg_device *device)
{
	if (!device)
		return;
	for (int i = 0; i < device->n_extra; i++)
		device->host->api.ggml_backend_buffer_free(device->extra_probe[i]);
	free(device);
}
