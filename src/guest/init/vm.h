/* SPDX-License-Identifier: Apache-2.0
 *
 * vm.h -- the first process of a microVM, from the kernel's hand-over to the distro's root. */
#ifndef PIL_GUEST_VM_H
#define PIL_GUEST_VM_H

#include <stdbool.h>

struct init_options;

/* Are we the kernel's first program, in our own initramfs? */
bool vm_booted(void);

/* Loads the modules, asks the host for this machine's options (they stand in *@argv, as on a
 * command line, NULL-terminated, and stay valid) and returns their count, or -errno. */
int vm_begin(char ***argv, int *life_fd);

/* Makes the distro's disk the root, with everything a distro expects to find mounted, and starts
 * listening for the agent's clients.  The listening socket, or -errno. */
int vm_enter(const struct init_options *options);

/* Listens for the host's connections to vsock port @port.  The socket, or -errno. */
int vm_listen(unsigned port);

/* Mounts anew the host's folders whose server on the host was replaced, unless somebody still has
 * files of the old one open.  Returns at once: a process of its own looks. */
void vm_mend_mounts(const struct init_options *options);

/* Writes everything to the disk and switches the machine off.  Returns only if it cannot. */
void vm_power_off(void);

#endif
