/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion-forward SOCKET: forwards the ports that are announced on standard input (forward_host.h).
 */
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "machine/forward_host.h"

int main(int argc, char **argv)
{
	log_init("pillion-forward");
	if (argc != 2) {
		log_err("usage: pillion-forward SOCKET (pillion-machine starts it)");
		return EXIT_FAILURE;
	}
	signal(SIGPIPE, SIG_IGN);
	forward_host_run(STDIN_FILENO, argv[1]);
	return EXIT_SUCCESS;
}
