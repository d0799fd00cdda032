/* SPDX-License-Identifier: Apache-2.0
 *
 * target.c -- see target.h. */
#include "link/target.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include "agent/agent.h"
#include "base/fd.h"
#include "wire/token.h"

static const char default_broker[] = "/run/pillion/host/broker.sock";
static const char microvm_mark[] = "/run/pillion/microvm"; /* made by pillion-init */
static const char default_token[] = "/run/pillion/token";

static int read_token(const char *path, uint8_t *token, struct pil_err *err)
{
	_auto_free char *text = NULL;
	ssize_t len = pil_read_file(path, 4096, &text);

	if (len < 0)
		return pil_err_set(err, (int)-len, "read this machine's token %s", path);
	if (len < TOKEN_HEX || !token_from_hex(text, token))
		return pil_err_say(err, EINVAL, "this machine's token %s is not one", path);
	return 0;
}

int target_find(struct channel_target *target, const struct wire_api *api, struct pil_err *err)
{
	const char *broker = getenv("PILLION_BROKER");
	const char *token = getenv("PILLION_TOKEN_FILE");

	target->api = api;
	/* A sandbox has the host's socket, a microVM the host at the end of a wire.  Only ours: a
	 * sandbox's host may itself be somebody's guest. */
	if (broker || access(microvm_mark, F_OK))
		snprintf(target->broker, sizeof(target->broker), "%s",
			 broker ? broker : default_broker);
	else
		snprintf(target->broker, sizeof(target->broker), "vsock:%u:%d", VMADDR_CID_HOST,
			 BROKER_VSOCK_PORT);
	return read_token(token ? token : default_token, target->token, err);
}
