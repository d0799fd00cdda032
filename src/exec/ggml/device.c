/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: sessions compute one at a time.  A device runs one graph fastest when it
 * runs it alone (a CPU's caches, a GPU's queues), so time is shared by turns and not by overlap.
 *
 * Fairness is start-time fair queueing over machines: each account has a clock of the device time
 * it used; the waiting turn with the lowest clock goes next.  A machine that was idle does not
 * save up: on arrival its clock is set forward to that of the last turn given.
 *
 * A turn lasts as long as its graph, which a program can make as long as it likes.  Who waits looks
 * at the clock for that reason, and calls a turn overdue that has lasted TURN_MAX_US; a back end
 * that can be stopped stops then. */
#include "device.h"

#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fd.h"
#include "log.h"
#include "str.h"

/* A batch of a large model takes a small machine's processors a minute. */
#define TURN_MAX_US INT64_C(120000000)

static int64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

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
	list_init(&d->waiting);
	d->turn_max_us = TURN_MAX_US;
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
		found->virtual_us = device->virtual_us;
		list_append(&device->accounts, &found->link);
	}
	if (found) {
		found->quota_bytes = quota_bytes;
		found->n_sessions++;
		device->n_sessions++;
	}
	pthread_mutex_unlock(&device->lock);
	return found;
}

void account_put(struct gg_device *device, struct account *account)
{
	pthread_mutex_lock(&device->lock);
	device->n_sessions--;
	if (--account->n_sessions == 0) {
		list_remove(&account->link);
		free(account);
	}
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

void turn_init(struct turn *turn, struct account *account)
{
	pthread_condattr_t attr;

	*turn = (struct turn){.account = account};
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&turn->granted_cond, &attr);
	pthread_condattr_destroy(&attr);
}

void turn_finish(struct turn *turn)
{
	pthread_cond_destroy(&turn->granted_cond);
}

/* The turn goes to @turn; NULL: to nobody. */
static void grant(struct gg_device *device, struct turn *turn)
{
	device->turn = turn;
	if (!turn)
		return;
	turn->started_us = now_us();
	atomic_store(&turn->overdue, false);
	device->virtual_us = turn->account->virtual_us;
}

static void await_turn(struct gg_device *device, struct turn *turn)
{
	turn->granted = false;
	list_append(&device->waiting, &turn->link);
	while (!turn->granted) {
		int64_t now = now_us(), due = device->turn->started_us + device->turn_max_us;
		struct timespec until;

		if (now >= due) {
			atomic_store(&device->turn->overdue, true);
			due = now + device->turn_max_us; /* not before that is the next one */
		}
		until = (struct timespec){due / 1000000, due % 1000000 * 1000};
		pthread_cond_timedwait(&turn->granted_cond, &device->lock, &until);
	}
}

void device_turn_begin(struct gg_device *device, struct turn *turn)
{
	pthread_mutex_lock(&device->lock);
	if (turn->account->virtual_us < device->virtual_us)
		turn->account->virtual_us = device->virtual_us;
	if (device->turn)
		await_turn(device, turn);
	else
		grant(device, turn);
	pthread_mutex_unlock(&device->lock);
}

int64_t device_turn_end(struct gg_device *device, struct turn *turn)
{
	struct turn *next = NULL, *t;
	int64_t used_us;

	pthread_mutex_lock(&device->lock);
	used_us = now_us() - turn->started_us;
	turn->account->virtual_us += used_us;
	list_for_each (t, &device->waiting, link)
		if (!next || t->account->virtual_us < next->account->virtual_us)
			next = t;
	grant(device, next);
	if (next) {
		list_remove(&next->link);
		next->granted = true;
		pthread_cond_signal(&next->granted_cond);
	}
	pthread_mutex_unlock(&device->lock);
	return used_us;
}
