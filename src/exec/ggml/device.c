/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: a device is opened once and shared by all sessions.  What each machine has
 * of it is kept in an account per machine: bytes here, time in turn.c.
 *
 * An account ends with its last session, unless its clock is ahead of the device's: then it is
 * kept until others have caught up, so that nobody gets rid of a bill by connecting anew.  Of these
 * there are at most DEVICE_MAX_LEFT; the one that owes least goes first. */
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

/* A slice of a graph takes a fraction of a second of the host's processors, much longer only when
 * weights have to be read from a slow disk.  Other devices may have to compile their programs, and
 * do not say how long a graph takes them. */
#define TURN_MAX_US       INT64_C(10000000)
#define TURN_MAX_OTHER_US INT64_C(60000000)
#define TURN_GRACE_US     INT64_C(10000000)

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

int gg_device_open(struct gg_device **out, struct ggml_host *host, const char *name,
		   struct pil_err *err)
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
	pthread_mutex_init(&d->lock, NULL);
	list_init(&d->accounts);
	list_init(&d->turns.waiting);
	d->turns.max_us = d->reference ? TURN_MAX_US : TURN_MAX_OTHER_US;
	d->turns.grace_us = TURN_GRACE_US;
	log_info("device %s: %s, ggml %s, %d extra buffer types", name,
		 api->ggml_backend_dev_description(d->dev), host->version, d->n_extra);
	*out = d;
	return 0;
}

static void drop_account(struct gg_device *device, struct account *account)
{
	if (device->turns.awaited == account)
		device->turns.awaited = NULL;
	list_remove(&account->link);
	free(account);
}

/* Forgets those without a session that owe nothing, and those too many. */
static void sweep_accounts(struct gg_device *device, unsigned max_left)
{
	for (;;) {
		struct account *a, *least = NULL;
		unsigned n_left = 0;

		list_for_each (a, &device->accounts, link) {
			if (a->n_sessions)
				continue;
			n_left++;
			if (!least || a->virtual_us < least->virtual_us)
				least = a;
		}
		if (!least || (n_left <= max_left && least->virtual_us > device->turns.virtual_us))
			return;
		drop_account(device, least);
	}
}

void gg_device_destroy(struct gg_device *device)
{
	if (!device)
		return;
	sweep_accounts(device, 0);
	for (int i = 0; i < device->n_extra; i++)
		device->host->api.ggml_backend_buffer_free(device->extra_probe[i]);
	pthread_mutex_destroy(&device->lock);
	free(device);
}

struct account *account_get(struct gg_device *device, const char *machine, uint64_t quota_bytes)
{
	struct account *a, *found = NULL;

	pthread_mutex_lock(&device->lock);
	list_for_each (a, &device->accounts, link)
		if (!strcmp(a->machine, machine))
			found = a;
	if (!found && (found = calloc(1, sizeof(*found)))) {
		snprintf(found->machine, sizeof(found->machine), "%s", machine);
		found->virtual_us = device->turns.virtual_us;
		found->weight = ACCOUNT_WEIGHT;
		list_append(&device->accounts, &found->link);
	}
	if (found) {
		found->quota_bytes = quota_bytes;
		found->n_sessions++;
		device->n_sessions++;
	}
	sweep_accounts(device, DEVICE_MAX_LEFT);
	pthread_mutex_unlock(&device->lock);
	return found;
}

void account_put(struct gg_device *device, struct account *account)
{
	pthread_mutex_lock(&device->lock);
	device->n_sessions--;
	account->n_sessions--;
	sweep_accounts(device, DEVICE_MAX_LEFT);
	pthread_mutex_unlock(&device->lock);
}

void account_weigh(struct gg_device *device, struct account *account, unsigned weight)
{
	if (weight > ACCOUNT_MAX_WEIGHT)
		weight = ACCOUNT_MAX_WEIGHT;
	pthread_mutex_lock(&device->lock);
	account->weight = weight ? weight : ACCOUNT_WEIGHT;
	pthread_mutex_unlock(&device->lock);
}

/* MemAvailable: what a reference device can still hold.  0 when it cannot be told. */
static uint64_t host_memory_available(void)
{
	_auto_free char *text = NULL;
	const char *line;

	if (pil_read_file("/proc/meminfo", 65536, &text) < 0 ||
	    !(line = strstr(text, "MemAvailable:")))
		return 0;
	return strtoull(line + strlen("MemAvailable:"), NULL, 10) * 1024;
}

static void device_memory(struct gg_device *device, uint64_t *free_bytes, uint64_t *total_bytes)
{
	size_t f = 0, t = 0;

	device->host->api.ggml_backend_dev_memory(device->dev, &f, &t);
	if (device->reference) { /* ggml calls all of a CPU's memory free */
		uint64_t available = host_memory_available();

		if (available && available < f)
			f = available;
	}
	*free_bytes = f;
	*total_bytes = t;
}

void account_memory(struct gg_device *device, struct account *account, uint64_t *free_bytes,
		    uint64_t *total_bytes)
{
	device_memory(device, free_bytes, total_bytes);
	pthread_mutex_lock(&device->lock);
	if (device->reference) {
		uint64_t left = *total_bytes > device->committed_bytes
					? *total_bytes - device->committed_bytes
					: 0;

		if (left < *free_bytes)
			*free_bytes = left;
	}
	if (account->quota_bytes && account->quota_bytes < *total_bytes) {
		uint64_t left = account->quota_bytes > account->used_bytes
					? account->quota_bytes - account->used_bytes
					: 0;

		*total_bytes = account->quota_bytes;
		if (left < *free_bytes)
			*free_bytes = left;
	}
	pthread_mutex_unlock(&device->lock);
}

static bool charge_locked(struct gg_device *device, struct account *account, uint64_t bytes,
			  uint64_t free_bytes, uint64_t total_bytes)
{
	bool ok = !account->quota_bytes || (account->used_bytes <= account->quota_bytes &&
					    bytes <= account->quota_bytes - account->used_bytes);

	/* malloc() would promise it, and the kernel would kill us for using it. */
	if (device->reference)
		ok = ok && bytes <= free_bytes && device->committed_bytes <= total_bytes &&
		     bytes <= total_bytes - device->committed_bytes;
	if (ok) {
		account->used_bytes += bytes;
		device->committed_bytes += bytes;
	}
	return ok;
}

bool account_charge(struct gg_device *device, struct account *account, uint64_t bytes)
{
	uint64_t free_bytes, total_bytes;
	bool ok;

	device_memory(device, &free_bytes, &total_bytes);
	pthread_mutex_lock(&device->lock);
	ok = charge_locked(device, account, bytes, free_bytes, total_bytes);
	pthread_mutex_unlock(&device->lock);
	return ok;
}

void account_refund(struct gg_device *device, struct account *account, uint64_t bytes)
{
	pthread_mutex_lock(&device->lock);
	account->used_bytes -= bytes;
	device->committed_bytes -= bytes;
	pthread_mutex_unlock(&device->lock);
}

/* Of @held_bytes, what is charged. */
static uint64_t held_charge(uint64_t held_bytes)
{
	return held_bytes > ACCOUNT_FREE_HELD_BYTES ? held_bytes - ACCOUNT_FREE_HELD_BYTES : 0;
}

bool account_hold(struct gg_device *device, struct account *account, uint64_t bytes)
{
	uint64_t free_bytes, total_bytes, more;
	bool ok;

	pthread_mutex_lock(&device->lock);
	ok = account->held_bytes <= ACCOUNT_FREE_HELD_BYTES &&
	     bytes <= ACCOUNT_FREE_HELD_BYTES - account->held_bytes;
	if (ok)
		account->held_bytes += bytes;
	pthread_mutex_unlock(&device->lock);
	if (ok)
		return true;
	device_memory(device, &free_bytes, &total_bytes);
	pthread_mutex_lock(&device->lock);
	ok = bytes <= ACCOUNT_MAX_HELD_BYTES - account->held_bytes;
	more = held_charge(account->held_bytes + bytes) - held_charge(account->held_bytes);
	ok = ok && (!more || charge_locked(device, account, more, free_bytes, total_bytes));
	if (ok)
		account->held_bytes += bytes;
	pthread_mutex_unlock(&device->lock);
	return ok;
}

void account_unhold(struct gg_device *device, struct account *account, uint64_t bytes)
{
	uint64_t less;

	pthread_mutex_lock(&device->lock);
	less = held_charge(account->held_bytes) - held_charge(account->held_bytes - bytes);
	account->held_bytes -= bytes;
	account->used_bytes -= less;
	device->committed_bytes -= less;
	pthread_mutex_unlock(&device->lock);
}

void device_uncommit(struct gg_device *device, uint64_t bytes)
{
	pthread_mutex_lock(&device->lock);
	device->committed_bytes -= bytes;
	pthread_mutex_unlock(&device->lock);
}

bool device_commit(struct gg_device *device, uint64_t bytes)
{
	size_t free_bytes = 0, total_bytes = 0;
	bool ok;

	device->host->api.ggml_backend_dev_memory(device->dev, &free_bytes, &total_bytes);
	pthread_mutex_lock(&device->lock);
	device->committed_bytes += bytes;
	ok = device->committed_bytes <= total_bytes;
	pthread_mutex_unlock(&device->lock);
	return ok;
}

bool account_share(struct gg_device *device, struct account *account, uint64_t bytes)
{
	uint64_t free_bytes, total_bytes;
	bool ok;

	device_memory(device, &free_bytes, &total_bytes);
	pthread_mutex_lock(&device->lock);
	ok = account->shared_bytes <= total_bytes && bytes <= total_bytes - account->shared_bytes;
	if (ok)
		account->shared_bytes += bytes;
	pthread_mutex_unlock(&device->lock);
	return ok;
}

void account_unshare(struct gg_device *device, struct account *account, uint64_t bytes)
{
	pthread_mutex_lock(&device->lock);
	account->shared_bytes -= bytes;
	pthread_mutex_unlock(&device->lock);
}
