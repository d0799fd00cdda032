/* SPDX-License-Identifier: Apache-2.0
 *
 * What a program may send to an executor: the input is the stream after the welcome, with a memfd
 * attached to its first byte.  Built once for each API: FUZZ_NULL says that it is null. */
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "exec/ggml/commands.h"
#include "exec/null/null.h"
#include "exec/session.h"
#include "lib/fake_ggml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct exec_api *api;
static void *dev;
static struct card *card;
static int shm_fd;

static void set_up(void)
{
#ifdef FUZZ_NULL
	api = &exec_api_null;
	if (card_create(&card, -1, 0, NULL) || api->open(&dev, NULL, "null", card, NULL))
		abort();
#else
	struct gg_device *device = fake_device_new();

	api = &exec_api_ggml;
	dev = device;
	card = device->card;
#endif
	shm_fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (ftruncate(shm_fd, 65536) || fcntl(shm_fd, F_ADD_SEALS, F_SEAL_SHRINK))
		abort();
}

static void *drain(void *arg)
{
	char buf[65536];
	int fd = *(int *)arg;

	while (read(fd, buf, sizeof(buf)) > 0)
		;
	return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct wire_hello hello = {.program = "fuzz"};
	struct session_opts opts = {.hello = &hello,
				    .machine = "fuzz",
				    .quota_bytes = 32 << 20,
				    .shm_ok = true};
	pthread_t reader;
	int pair[2];

	if (!api)
		set_up();
	if (size == 0 || size > 1 << 20 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return 0;
	opts.fd = pair[0];
	if (session_start(api, dev, card, &opts, NULL))
		abort();
	pthread_create(&reader, NULL, drain, &pair[1]);
	if (pil_send_fds(pair[1], data, size, &shm_fd, 1) == 0)
		shutdown(pair[1], SHUT_WR);
	pthread_join(reader, NULL); /* the session's end closes its side */
	while (card_n_sessions(card))
		usleep(10);
	if (card->committed_bytes)
		abort(); /* something is charged to nobody */
	close(pair[1]);
	return 0;
}
