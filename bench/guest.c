/* SPDX-License-Identifier: Apache-2.0
 *
 * The first process of a guest that is measured (bench/vmm).  It says that it runs by writing to an
 * I/O port, which the host's kernel can trace under any monitor, loads the modules in /modules,
 * does what bench= on the kernel's command line names, prints "BENCH NAME VALUE" lines on the
 * virtio console, and ends the machine. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <linux/aio_abi.h>
#include <linux/vm_sockets.h>

enum {
	MARK_PORT = 0xf4,
	ECHO_PORT = 5000, /* of bench_vsock_host */
	SINK_PORT,
	SOURCE_PORT,
	ROUND_TRIPS = 1000,
	BULK_SECONDS = 2,
	BULK_PASSES = 2,
	CHUNK_BYTES = 64 << 10,
	DISK_BYTES = 128 << 20,
	SEQUENTIAL_BYTES = 32 << 20,
	RANDOM_REQUESTS = 1000,
	DEEP_REQUESTS = 3000,
	DEPTH = 16,
	SYNCED_WRITES = 200,
	BLOCK = 4096,
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void say(const char *name, double value)
{
	printf("BENCH %s %.3f\n", name, value);
	fflush(stdout);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void load_modules(void)
{
	struct dirent **names;
	int n = scandir("/modules", &names, NULL, by_name);
	char path[300];

	for (int i = 0; i < n; i++) {
		int fd;

		snprintf(path, sizeof(path), "/modules/%s", names[i]->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0)
			syscall(SYS_finit_module, fd, "", 0);
		if (fd >= 0)
			close(fd);
	}
}

static int open_soon(const char *path, int flags)
{
	int fd = -1;

	for (int i = 0; i < 2000 && (fd = open(path, flags | O_CLOEXEC)) < 0; i++)
		poll(NULL, 0, 5);
	return fd;
}

/* ---- vsock ---- */

static int vsock(unsigned port)
{
	struct sockaddr_vm host = {.svm_family = AF_VSOCK,
				   .svm_cid = VMADDR_CID_HOST,
				   .svm_port = port};
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, (struct sockaddr *)&host, sizeof(host))) {
		printf("vsock port %u: %s\n", port, strerror(errno));
		exit(1);
	}
	return fd;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void round_trips(void)
{
	static double us[ROUND_TRIPS];
	int fd = vsock(ECHO_PORT);
	char text[64] = "";

	for (int i = 0; i < ROUND_TRIPS; i++) {
		double start = now();

		if (write(fd, text, sizeof(text)) != sizeof(text) ||
		    recv(fd, text, sizeof(text), MSG_WAITALL) != sizeof(text))
			return;
		us[i] = (now() - start) * 1e6;
	}
	qsort(us, ROUND_TRIPS, sizeof(us[0]), compare);
	say("vsock_round_trip_us", us[ROUND_TRIPS / 2]);
	close(fd);
}

/* For some seconds rather than some bytes: monitors differ by a factor of a hundred. */
static void send_bulk(void)
{
	static char chunk[CHUNK_BYTES];
	int fd = vsock(SINK_PORT);
	double start = now(), bytes = 0;
	ssize_t n;

	for (; now() - start < BULK_SECONDS; bytes += (double)n)
		if ((n = write(fd, chunk, sizeof(chunk))) <= 0)
			return;
	shutdown(fd, SHUT_WR);
	if (read(fd, chunk, 1) == 1) /* all of it has arrived */
		say("vsock_to_host_mb_s", bytes / 1e6 / (now() - start));
	close(fd);
}

static void receive_bulk(void)
{
	static char chunk[CHUNK_BYTES];
	int fd = vsock(SOURCE_PORT);
	double start = now(), bytes = 0;
	ssize_t n;

	for (; now() - start < BULK_SECONDS; bytes += (double)n)
		if ((n = read(fd, chunk, sizeof(chunk))) <= 0)
			return;
	say("vsock_to_guest_mb_s", bytes / 1e6 / (now() - start));
	close(fd);
}

static void bulk(void)
{
	for (int i = 0; i < BULK_PASSES; i++) {
		send_bulk();
		receive_bulk();
	}
}

/* ---- disk ---- */

static void sequential(int fd, char *buffer, bool writing)
{
	enum { PIECE = 1 << 20 };
	double start = now();

	for (off_t at = 0; at < SEQUENTIAL_BYTES; at += PIECE)
		if ((writing ? pwrite(fd, buffer, PIECE, at) : pread(fd, buffer, PIECE, at)) !=
		    PIECE)
			return;
	say(writing ? "blk_write_mb_s" : "blk_read_mb_s", SEQUENTIAL_BYTES / 1e6 / (now() - start));
}

/* The same places every time. */
static off_t random_place(uint32_t *seed)
{
	*seed = *seed * 1664525u + 1013904223u;
	return (off_t)((*seed >> 8) % (DISK_BYTES / BLOCK)) * BLOCK;
}

static void at_random(int fd, char *buffer, bool writing)
{
	uint32_t seed = 1;
	double start = now();

	for (int i = 0; i < RANDOM_REQUESTS; i++) {
		off_t at = random_place(&seed);

		if ((writing ? pwrite(fd, buffer, BLOCK, at) : pread(fd, buffer, BLOCK, at)) !=
		    BLOCK)
			return;
	}
	say(writing ? "blk_write_4k_iops" : "blk_read_4k_iops", RANDOM_REQUESTS / (now() - start));
}

static struct iocb request(int fd, char *buffer, off_t at, bool writing)
{
	return (struct iocb){.aio_fildes = (uint32_t)fd,
			     .aio_lio_opcode = writing ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD,
			     .aio_buf = (uint64_t)buffer,
			     .aio_nbytes = BLOCK,
			     .aio_offset = at};
}

/* As at_random(), with DEPTH requests under way at any time; each has a block of @buffer. */
static void at_random_deep(int fd, char *buffer, bool writing)
{
	struct iocb all[DEPTH], *next[DEPTH];
	struct io_event done[DEPTH];
	aio_context_t context = 0;
	uint32_t seed = 1;
	long n = DEPTH, n_done = 0;
	double start = now();

	if (syscall(SYS_io_setup, DEPTH, &context))
		return;
	for (int i = 0; i < DEPTH; i++)
		next[i] = &all[i];
	for (; n_done < DEEP_REQUESTS; n_done += n) {
		for (int i = 0; i < n; i++)
			*next[i] = request(fd, buffer + (next[i] - all) * BLOCK,
					   random_place(&seed), writing);
		if (syscall(SYS_io_submit, context, n, next) != n)
			return;
		n = syscall(SYS_io_getevents, context, 1L, (long)DEPTH, done, NULL);
		if (n <= 0)
			return;
		for (int i = 0; i < n; i++) {
			if (done[i].res != BLOCK)
				return;
			next[i] = (struct iocb *)done[i].obj;
		}
	}
	say(writing ? "blk_write_4k_qd16_iops" : "blk_read_4k_qd16_iops",
	    (double)n_done / (now() - start));
	syscall(SYS_io_destroy, context); /* waits for those still under way */
}

/* What a database does: each write is on the disk before the next. */
static void synced(int fd, char *buffer)
{
	double start = now();

	for (int i = 0; i < SYNCED_WRITES; i++)
		if (pwrite(fd, buffer, BLOCK, (off_t)i * BLOCK) != BLOCK || fdatasync(fd))
			return;
	say("blk_write_sync_iops", SYNCED_WRITES / (now() - start));
}

static void disk(void)
{
	int fd = open_soon("/dev/vda", O_RDWR | O_DIRECT);
	char *buffer = aligned_alloc(BLOCK, 1 << 20);

	if (fd < 0 || !buffer)
		return;
	memset(buffer, 7, 1 << 20);
	for (int writing = 1; writing >= 0; writing--) {
		sequential(fd, buffer, writing);
		at_random(fd, buffer, writing);
		at_random_deep(fd, buffer, writing);
	}
	synced(fd, buffer);
}

static bool asked(const char *what)
{
	static char text[4096];
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : 0;

	text[n > 0 ? n : 0] = '\0';
	if (fd >= 0)
		close(fd);
	return strstr(text, what) != NULL;
}

int main(void)
{
	int console;

	if (iopl(3) == 0)
		outb(1, MARK_PORT);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	if (!asked("bench=boot")) {
		load_modules();
		console = open_soon("/dev/hvc0", O_RDWR | O_NOCTTY);
		dup2(console, STDOUT_FILENO);
		if (asked("bench=vsock")) {
			round_trips();
			bulk();
		}
		if (asked("bench=blk"))
			disk();
		if (asked("bench=idle")) {
			mount("share0", "/mnt", "virtiofs", 0, NULL);
			say("up", 1);
			poll(NULL, 0, 8000);
		}
		say("end", 1);
		tcdrain(STDOUT_FILENO);
		poll(NULL, 0, 200);
	}
	reboot(RB_AUTOBOOT);
	return 1;
}
