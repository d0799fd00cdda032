/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of back ends, and which of them serves here. */
#include "machine/backend.h"

#include <errno.h>
#include <stddef.h>

extern const struct backend backend_kvm, backend_ns;

const struct backend *const backends[] = {&backend_kvm, &backend_ns, NULL};

const struct backend *backend_choose(const struct state_dirs *dirs, unsigned wanted,
				     struct pil_err *err)
{
	char why[256] = "";

	if (wanted == 3) /* as some call the microVM */
		wanted = 2;
	for (const struct backend *const *ops = backends; *ops; ops++) {
		if (wanted && (*ops)->version != wanted)
			continue;
		if ((*ops)->usable(dirs, why, sizeof(why)))
			return *ops;
		pil_err_say(err, ENOTSUP, "no %s on this host: %s", (*ops)->title, why);
		if (wanted == 2)
			pil_err_hint(err, "version 1, the sandbox, works without KVM: "
					  "pillion --set-version NAME 1");
	}
	return NULL;
}
