/* SPDX-License-Identifier: Apache-2.0
 *
 * What a program may send to an executor, cut into pieces anywhere, with descriptors of any kind
 * at any of them.  The input is records: a byte (what comes along, and flags), a length of two
 * bytes, and the piece. */
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "exec/session.h"
#include "lib/fake_ggml.h"

enum {
	FILE_BYTES = 65536,
	MAX_INPUT = 1 << 17,
	KIND = 7,        /* enum what */
	CUT_FILE = 0x40, /* after this piece, under whoever has mapped it */
	LET_READ = 0x80, /* the reader finds the piece alone */
};

enum what {
	NOTHING,
	SEALED_MEMORY,
	UNSEALED_MEMORY,
	REGULAR_FILE,
	SOCKET,
	PIPE,
	FOLDER,
	TWO, /* a file and memory */
	NUM_WHAT
};

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct gg_device *device;
static int fds[NUM_WHAT];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	char path[] = "/tmp/fuzz-fragments-XXXXXX";
	int pair[2];

	(void)argc;
	(void)argv;
	device = fake_device_new();
	fds[SEALED_MEMORY] = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	fds[UNSEALED_MEMORY] = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	fds[REGULAR_FILE] = mkstemp(path);
	unlink(path);
	fds[FOLDER] = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (ftruncate(fds[SEALED_MEMORY], FILE_BYTES) ||
	    ftruncate(fds[UNSEALED_MEMORY], FILE_BYTES) ||
	    fcntl(fds[SEALED_MEMORY], F_ADD_SEALS, F_SEAL_SHRINK) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		abort();
	fds[SOCKET] = pair[0];
	if (pipe2(pair, O_CLOEXEC))
		abort();
	fds[PIPE] = pair[0];
	return 0;
}

static void *drain(void *arg)
{
	char buf[65536];
	int fd = *(int *)arg;

	while (read(fd, buf, sizeof(buf)) > 0)
		;
	return NULL;
}

static int send_piece(int fd, enum what what, const uint8_t *piece, size_t n)
{
	const int two[2] = {fds[REGULAR_FILE], fds[SEALED_MEMORY]};

	if (what == NOTHING)
		return pil_send_fds(fd, piece, n, NULL, 0);
	return what == TWO ? pil_send_fds(fd, piece, n, two, 2)
			   : pil_send_fds(fd, piece, n, &fds[what], 1);
}

static void send_all(int fd, const uint8_t *data, size_t size)
{
	while (size > 3) {
		size_t n = (size_t)data[1] | (size_t)data[2] << 8;
		uint8_t what = data[0];

		data += 3;
		size -= 3;
		n = n < size ? n : size;
		if (n && send_piece(fd, what & KIND, data, n))
			return;
		if (what & LET_READ)
			usleep(50);
		if (what & CUT_FILE && ftruncate(fds[REGULAR_FILE], 0))
			return;
		data += n;
		size -= n;
	}
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

	if (size == 0 || size > MAX_INPUT || ftruncate(fds[REGULAR_FILE], FILE_BYTES) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return 0;
	opts.fd = pair[0];
	if (fake_session_start(device, &opts))
		abort();
	pthread_create(&reader, NULL, drain, &pair[1]);
	send_all(pair[1], data, size);
	shutdown(pair[1], SHUT_WR);
	pthread_join(reader, NULL); /* the session's end closes its side */
	while (card_n_sessions(device->card))
		usleep(10);
	if (device->card->committed_bytes)
		abort(); /* something is charged to nobody */
	close(pair[1]);
	return 0;
}
