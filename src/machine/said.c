/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: a budget of BURST_BYTES that fills up again at BYTES_PER_S.  What comes
 * beyond it is read and dropped, so that a program which prints much goes on; how much was dropped
 * is said once there is room again.  A line begins with who said it, and control characters are
 * escaped: nobody can forge a line of another part, nor reach the terminal of who reads the log.
 * Where it pauses within a line, the line ends, since others write to the log, too. */
#include "machine/said.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/loop.h"

enum {
	BURST_BYTES = 256 << 10,
	BYTES_PER_S = 16 << 10,
	PIPE_BYTES = 64 << 10,
	REST_MS = 20,
};

int said_open(struct said *said, const char *who, int *write_fd, struct pil_err *err)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC))
		return pil_err_set(err, errno, "log of '%s': pipe", who);
	*said = (struct said){.who = who,
			      .read_fd = fds[0],
			      .filled_ms = loop_now_ms(),
			      .left_bytes = BURST_BYTES};
	pil_set_nonblock(said->read_fd, true);
	*write_fd = fds[1];
	return 0;
}

static void fill_up(struct said *said)
{
	int64_t now = loop_now_ms(), passed_ms = now - said->filled_ms;
	size_t more;

	if (passed_ms < 1000)
		return;
	said->filled_ms = now;
	more = passed_ms > 60000 ? BURST_BYTES : (size_t)passed_ms * BYTES_PER_S / 1000;
	said->left_bytes += more;
	if (said->left_bytes > BURST_BYTES)
		said->left_bytes = BURST_BYTES;
	if (said->lost_bytes && said->left_bytes >= BYTES_PER_S) {
		log_warn("%s printed too much: %llu bytes are not in this log", said->who,
			 (unsigned long long)said->lost_bytes);
		said->lost_bytes = 0;
	}
}

struct text {
	char bytes[PIPE_BYTES];
	size_t len;
};

static void flush(struct text *text)
{
	if (pil_write_all(STDERR_FILENO, text->bytes, text->len))
		log_dbg("the log takes no more");
	text->len = 0;
}

static void put(struct text *text, const char *bytes, size_t len)
{
	if (sizeof(text->bytes) - text->len < len)
		flush(text);
	memcpy(text->bytes + text->len, bytes, len);
	text->len += len;
}

static void put_char(struct said *said, struct text *text, unsigned char c)
{
	static const char hex[] = "0123456789abcdef";
	bool control;

	if (!said->in_line) {
		put(text, said->who, strlen(said->who));
		put(text, ": ", 2);
	}
	said->in_line = c != '\n';
	control = c < ' ' || c == 0x7f || (said->last == 0xc2 && c >= 0x80 && c < 0xa0);
	said->last = c;
	if (!control || c == '\n' || c == '\t')
		put(text, (char *)&c, 1);
	else
		put(text, (char[]){'\\', 'x', hex[c >> 4], hex[c & 15]}, 4);
}

static void pass_on(struct said *said, const char *bytes, size_t len)
{
	static struct text text; /* too large for the stack; one thread */

	for (size_t i = 0; i < len; i++)
		put_char(said, &text, (unsigned char)bytes[i]);
	flush(&text);
}

void said_pass_on(struct said *said)
{
	char bytes[4096];

	if (said->read_fd < 0)
		return;
	fill_up(said);
	for (size_t done = 0; done < PIPE_BYTES;) {
		ssize_t n = read(said->read_fd, bytes, sizeof(bytes));
		size_t len = n < 0 ? 0 : (size_t)n, taken;

		if (n == 0)
			pil_close_p(&said->read_fd); /* nobody has the other end any more */
		if (n <= 0)
			break;
		taken = len < said->left_bytes ? len : said->left_bytes;
		pass_on(said, bytes, taken);
		said->left_bytes -= taken;
		said->lost_bytes += len - taken;
		done += len;
	}
	if (said->in_line)
		pass_on(said, "\n", 1);
	said->next_ms = loop_now_ms() + REST_MS;
}

int said_rest_ms(const struct said *said)
{
	return loop_left_ms(said->next_ms);
}

void said_finish(struct said *said)
{
	said_pass_on(said);
	pil_close_p(&said->read_fd);
}
