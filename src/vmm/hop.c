/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: there is one slot.  A vCPU waits until it is free, fills it, rings the
 * eventfd and waits until its call was counted as done.  Calls are rare (the set-up of a device,
 * its configuration), so that one slot is enough; doorbells and interrupts do not come this way. */
#include "vmm/hop.h"

#include <errno.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/fd.h"

/* #syscalls: read */
static void rung(struct loop_source *source, uint32_t events)
{
	struct hop *hop = container_of(source, struct hop, source);
	void (*call)(void *);
	uint64_t count;

	(void)events;
	if (read(source->fd, &count, sizeof(count)) < 0)
		return;
	pthread_mutex_lock(&hop->lock);
	call = hop->call;
	pthread_mutex_unlock(&hop->lock);
	if (!call)
		return;
	call(hop->arg);
	pthread_mutex_lock(&hop->lock);
	hop->call = NULL;
	hop->done++;
	pthread_cond_broadcast(&hop->changed);
	pthread_mutex_unlock(&hop->lock);
}

int hop_init(struct hop *hop, struct loop *loop)
{
	int ret;

	*hop = (struct hop){.source = {.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)}};
	if (hop->source.fd < 0)
		return -errno;
	hop->source.ready = rung;
	pthread_mutex_init(&hop->lock, NULL);
	pthread_cond_init(&hop->changed, NULL);
	ret = loop_add(loop, &hop->source, EPOLLIN);
	if (ret)
		pil_close_p(&hop->source.fd);
	return ret;
}

void hop_finish(struct hop *hop)
{
	loop_remove(&hop->source);
	pil_close_p(&hop->source.fd);
}

/* #syscalls vcpu: write */
void hop_call(struct hop *hop, void (*call)(void *arg), void *arg)
{
	uint64_t one = 1;
	unsigned long mine;

	pthread_mutex_lock(&hop->lock);
	while (hop->call && !hop->closed)
		pthread_cond_wait(&hop->changed, &hop->lock);
	if (!hop->closed) {
		hop->call = call;
		hop->arg = arg;
		mine = hop->done + 1;
		while (write(hop->source.fd, &one, sizeof(one)) < 0 && errno == EINTR)
			;
		while (hop->done < mine && !hop->closed)
			pthread_cond_wait(&hop->changed, &hop->lock);
	}
	pthread_mutex_unlock(&hop->lock);
}

void hop_close(struct hop *hop)
{
	pthread_mutex_lock(&hop->lock);
	hop->closed = true;
	pthread_cond_broadcast(&hop->changed);
	pthread_mutex_unlock(&hop->lock);
}
