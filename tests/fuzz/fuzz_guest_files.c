/* SPDX-License-Identifier: Apache-2.0
 *
 * Files of a distribution that pillion-init reads: wsl.conf, environment, passwd, group; and the
 * kernel's lists of sockets. */
#include <stdlib.h>
#include <string.h>

#include "agent/agent.h"
#include "guest/init/listeners.h"
#include "guest/init/passwd.h"
#include "guest/init/setup.h"
#include "guest/init/wsl_conf.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	struct wsl_conf conf;
	struct user user;
	uint16_t ports[AGENT_MAX_PORTS];
	int end;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	wsl_conf_parse(text, &conf);
	free(setup_environment(text, true));
	passwd_parse(text, text, "alice", &user);
	passwd_parse(text, text, "1000", &user);
	if (listeners_parse_text(text, ports, listeners_parse_text(text, ports, 0)) >
	    AGENT_MAX_PORTS)
		abort();
	if (listeners_parse_diag(data, (uint32_t)size, ports, 0, &end) > AGENT_MAX_PORTS)
		abort();
	free(text);
	return 0;
}
