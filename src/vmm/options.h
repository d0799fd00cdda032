/* SPDX-License-Identifier: Apache-2.0
 *
 * options.h -- the command line of pillion-vmm, and the files it names. */
#ifndef PIL_OPTIONS_H
#define PIL_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

enum {
	OPTIONS_MAX_DISKS = 8,
	OPTIONS_MAX_FS = 8,
	OPTIONS_MAX_LISTENS = 16,
	OPTIONS_MAX_CONNECTS = 8,
};

struct options { /* the strings are argv's */
	const char *kernel, *initrd, *cmdline;
	uint64_t memory_mib;
	unsigned n_vcpus;
	struct {
		const char *path; /* of one that came open, its name for messages */
		bool read_only;
		int fd;
	} disks[OPTIONS_MAX_DISKS]; /* --disk, --disk-fd */
	unsigned n_disks;
	struct {
		const char *tag, *socket;
	} fs[OPTIONS_MAX_FS];
	unsigned n_fs;
	struct {
		int fd;
		uint32_t port;
	} listens[OPTIONS_MAX_LISTENS]; /* --vsock-listen */
	unsigned n_listens;
	struct {
		uint32_t port;
		const char *path;
	} connects[OPTIONS_MAX_CONNECTS]; /* --vsock-connect */
	unsigned n_connects;
	int net_fd, net_control_fd, console_fd, early_fd; /* -1: none */
	int report_fd;                                    /* base/report.h; -1: none */
	bool boot_timer, jail, nested;
	bool keep_memory; /* no balloon: what the guest frees stays with it */

	int kvm_fd, kernel_fd, initrd_fd; /* opened by options_open() */
};

int options_parse(struct options *o, int argc, char **argv, struct pil_err *err) PIL_MUST_CHECK;

/* Opens all files that the machine needs; disks are locked.  -errno. */
int options_open(struct options *o, struct pil_err *err) PIL_MUST_CHECK;

#endif
