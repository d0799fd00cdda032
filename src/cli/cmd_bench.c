/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion bench: chooses the machine, the device and the programs, lets src/bench measure, and
 * prints the report. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"
#include "bench/bench.h"
#include "bench/report.h"
#include "broker/broker.h"
#include "cli/cli.h"
#include "config/config.h"
#include "config/registry.h"
#include "config/state.h"
#include "kit/native_kit.h"
#include "machine/backend.h"
#include "machine/machine.h"
#include "wire/wire.h"

enum {
	MAX_TOKENS = 1000000,
	DEFAULT_PROMPT = 512,
	DEFAULT_GEN = 128,
	DEFAULT_ROUNDS = 5,
	STATUS_BUSY = 3, /* nothing was measured, because the host was busy */
	MAX_NAME_BYTES = 256
};

struct request {
	struct bench_opts bench;
	const char *distro, *device, *plot;
	bool json;
	struct wire_device chosen;
	char inside_name[32]; /* the chosen device's, to programs in a machine */
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number)
{
	(void)signal_number;
	interrupted = 1;
}

static void show_progress(const char *text, int done, int all)
{
	bool terminal = isatty(STDERR_FILENO);

	fprintf(stderr, "%sbench: %d/%d: %s%s", terminal ? "\r\033[K" : "", done + 1, all, text,
		terminal ? "" : "\n");
}

static void end_progress(void)
{
	if (isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
}

static int number(const char *option, const char *text, uint64_t min, uint64_t max, unsigned *out,
		  struct pil_err *err)
{
	uint64_t value;

	if (!str_to_u64(text, max, &value) || value < min)
		return pil_err_say(err, EINVAL, "%s '%s': not a number from %lu to %lu", option,
				   text, (unsigned long)min, (unsigned long)max);
	*out = (unsigned)value;
	return 0;
}

static int set_option(struct request *r, int option, const char *value, struct pil_err *err)
{
	unsigned rounds = 0;
	int ret = 0;

	switch (option) {
	case OPT_BENCH_MODEL:
		r->bench.model = value;
		break;
	case OPT_BENCH_DISTRIBUTION:
		r->distro = value;
		break;
	case OPT_BENCH_N_PROMPT:
		ret = number("-p", value, 0, MAX_TOKENS, &r->bench.n_prompt, err);
		break;
	case OPT_BENCH_N_GEN:
		ret = number("-n", value, 0, MAX_TOKENS, &r->bench.n_gen, err);
		break;
	case OPT_BENCH_ROUNDS:
		ret = number("-r", value, 1, STATS_MAX, &rounds, err);
		if (!ret)
			r->bench.n_rounds = (int)rounds;
		break;
	case OPT_BENCH_DEVICE:
		r->device = value;
		break;
	case OPT_BENCH_JSON:
		r->json = true;
		break;
	case OPT_BENCH_PLOT:
		r->plot = value;
		break;
	case OPT_BENCH_EVEN_IF_BUSY:
		r->bench.even_if_busy = true;
		break;
	default:
		ret = pil_err_say(err, EINVAL, "%s", options_why());
	}
	return ret;
}

static int parse(struct request *r, int argc, char **argv, struct pil_err *err)
{
	int option, ret;

	optind = 1;
	while ((option = options_next(CMD_BENCH, "", argc, argv)) != OPTIONS_END) {
		ret = set_option(r, option, optarg, err);
		if (ret)
			return ret;
	}
	if (optind < argc)
		return pil_err_say(err, EINVAL, "what is '%s'?", argv[optind]);
	if (!r->bench.model)
		return pil_err_say(err, EINVAL, "no model given: -m FILE.gguf");
	if (r->bench.n_prompt + r->bench.n_gen == 0)
		return pil_err_say(err, EINVAL, "nothing to measure: -p and -n are 0");
	return 0;
}

/* Chooses the device to measure, under its two names.  What programs choose by themselves is the
 * first one, so with a single device nothing needs saying to llama-bench. */
static int choose_device(struct request *r, const struct state_dirs *dirs, struct pil_err *err)
{
	struct wire_device found[WIRE_MAX_DEVICES];
	int n = broker_devices(dirs, found, WIRE_MAX_DEVICES, err), at = 0;

	if (n < 0)
		return n;
	while (r->device && at < n && strcasecmp(found[at].name, r->device) != 0)
		at++;
	if (at >= n) {
		if (!r->device)
			return pil_err_say(err, ENODEV, "the broker offers no device");
		pil_err_say(err, ENODEV, "no device is called '%s'", r->device);
		if (n)
			pil_err_hint(err, "the first one there is: --device %s", found[0].name);
		return -ENODEV;
	}
	r->chosen = found[at];
	snprintf(r->inside_name, sizeof(r->inside_name), "Pillion%d", at);
	if (n > 1 || r->device)
		r->bench.inside_device = r->inside_name;
	/* the host's CPU is what llama-bench falls back to; it is no -dev of its own there */
	if (!(r->chosen.flags & WIRE_DEVICE_REFERENCE))
		r->bench.native_device = r->chosen.name;
	return 0;
}

static int measure(struct request *r, struct bench_report *report, struct pil_err *err)
{
	static const struct sigaction act = {.sa_handler = on_interrupt};
	struct sigaction old_int, old_term;
	int ret;

	sigaction(SIGINT, &act, &old_int);
	sigaction(SIGTERM, &act, &old_term);
	r->bench.stop = &interrupted;
	r->bench.progress = show_progress;
	ret = bench_run(&r->bench, report, err);
	end_progress();
	sigaction(SIGINT, &old_int, NULL);
	sigaction(SIGTERM, &old_term, NULL);
	return ret;
}

/* How the machine sees a host file: the folder of models is shared with all of them; heap. NULL:
 * it does not. */
static char *seen_inside(const struct state_dirs *dirs, const char *model)
{
	_auto_free char *file = realpath(model, NULL);
	_auto_free char *models = str_printf("%s/models", dirs->cache);
	_auto_free char *folder = realpath(models, NULL);
	size_t len = folder ? strlen(folder) : 0;

	if (!file || !folder || strncmp(file, folder, len) != 0 || file[len] != '/')
		return NULL;
	return str_printf("/mnt/models%s", file + len);
}

static int print(const struct request *r, const struct bench_report *report,
		 const struct report_names *names, struct pil_err *err)
{
	int ret = r->json ? report_print_json(stdout, report, names)
			  : report_print_table(stdout, report, names);

	if (ret)
		return pil_err_set(err, -ret, "print the report");
	if (report->host.busy)
		return -EBUSY;
	return r->plot ? report_plot(r->plot, report, names, err) : 0;
}

/* Native runs where the executor does: in the kit, or on the host with the user's own ggml. */
static void set_native_root(struct request *r, const struct config *config, const char *kit)
{
	r->bench.device_root = config->ggml_dir ? "/" : kit;
	r->bench.ggml_dir = config->ggml_dir;
	r->bench.env = config->env;
	r->bench.n_env = config->n_env;
}

/* Where the program outside runs from: its distribution's own tree, or, of one that is a disk, a
 * tree of the same packages.  Heap. */
static int find_native_tree(const struct state_dirs *dirs, const struct distro *distro, char **out,
			    struct pil_err *err)
{
	_auto_fd int lock_fd = -1;

	if (distro->version == 1) {
		*out = str_printf("%s/distros/%s/rootfs", dirs->data, distro->name);
		return 0;
	}
	lock_fd = registry_lock(dirs, err);
	return lock_fd < 0 ? lock_fd : native_kit_ensure(dirs, distro->flavor, out, err);
}

static int bench(struct request *r, const struct state_dirs *dirs, const struct config *config,
		 struct pil_err *err)
{
	_auto_free char *kit = str_printf("%s/kits/runtime/rootfs", dirs->data);
	_auto_free char *self = path_of_self();
	_auto_free char *program = str_printf("%s/pillion", self ? self : "");
	_auto_free char *seen = seen_inside(dirs, r->bench.model);
	_auto_free char *broker_pid = str_printf("%s/broker.pid", dirs->runtime);
	_auto_free char *machine_pid = NULL;
	const char *pid_files[] = {broker_pid, NULL, NULL};
	_auto_free char *rootfs = NULL;
	const struct backend *backend;
	struct bench_report report;
	struct distro distro;
	int ret = r->distro ? registry_find(dirs, r->distro, &distro, err)
			    : registry_default(dirs, &distro, err);

	if (ret)
		return ret;
	backend = backend_choose(dirs, distro.version, err);
	if (!backend)
		return -err->code;
	ret = broker_ensure(dirs, err);
	if (!ret)
		ret = choose_device(r, dirs, err);
	if (!ret)
		ret = find_native_tree(dirs, &distro, &rootfs, err);
	if (ret)
		return ret;
	machine_pid = str_printf("%s/machines/%s/pid", dirs->runtime, distro.name);
	pid_files[1] = machine_pid;
	r->bench.pid_files = pid_files;
	r->bench.pillion = program;
	r->bench.machine = distro.name;
	r->bench.rootfs = rootfs;
	r->bench.inside_model = seen;
	if (r->bench.native_device)
		set_native_root(r, config, kit);
	ret = measure(r, &report, err);
	if (ret)
		return ret;
	return print(r, &report,
		     &(struct report_names){.device = r->chosen.name,
					    .reference = r->chosen.flags & WIRE_DEVICE_REFERENCE,
					    .machine = distro.name,
					    .backend = backend->name,
					    .model = r->bench.model},
		     err);
}

int cmd_bench(struct cli *cli, int argc, char **argv)
{
	struct request r = {.bench = {.n_prompt = DEFAULT_PROMPT,
				      .n_gen = DEFAULT_GEN,
				      .n_rounds = DEFAULT_ROUNDS}};
	_auto_free char *path = NULL;
	struct config config = {0};
	struct pil_err err = {0};
	int ret = parse(&r, argc, argv, &err);

	if (ret)
		return cli_usage(CMD_BENCH, err.msg);
	path = str_printf("%s/config", cli->dirs.config);
	ret = config_load(&config, path, &err);
	if (!ret)
		ret = bench(&r, &cli->dirs, &config, &err);
	config_finish(&config);
	if (!ret)
		return EXIT_SUCCESS;
	if (ret == -EBUSY && !err.code)
		return STATUS_BUSY; /* the report says why */
	pil_err_prefix(&err, "bench");
	cli_fail(&err);
	return ret == -EINTR ? 128 + SIGINT : EXIT_FAILURE;
}
