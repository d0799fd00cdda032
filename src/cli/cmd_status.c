/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion --status: what a person wants to know first: the default distribution, how machines are
 * isolated on this host and why, and the devices.  All is gathered first, then printed as text or
 * as JSON. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"
#include "broker/broker.h"
#include "broker/host.h"
#include "cli/cli.h"
#include "config/registry.h"
#include "machine/huge_pages.h"
#include "machine/kvm_probe.h"
#include "machine/backend.h"
#include "machine/machine.h"

struct report {
	struct distro def;
	bool have_default, have_kit;
	const struct backend *backend;
	char why[256];
	struct huge_pages huge_pages;
	struct host_way ways[WIRE_MAX_DEVICES]; /* to cards; those of one card follow each other */
	int n_ways;
	struct pil_err way_err;
};

static void gather(struct cli *cli, struct report *r)
{
	_auto_free char *stamp = str_printf("%s/kits/runtime/stamp", cli->dirs.data);
	struct pil_err err = {0};

	kvm_probe_forget(&cli->dirs); /* who asks wants to know how it is now */
	r->have_default = registry_default(&cli->dirs, &r->def, &err) == 0;
	r->have_kit = path_exists(stamp);
	r->backend = backend_choose(&cli->dirs, 0, &err);
	if (!r->backend)
		snprintf(r->why, sizeof(r->why), "%.250s", err.msg);
	else /* the best there is; or why it is not */
		backends[0]->usable(&cli->dirs, r->why, sizeof(r->why));
	huge_pages_look(&r->huge_pages);
	r->n_ways = broker_ways(&cli->dirs, r->ways, WIRE_MAX_DEVICES, &r->way_err);
}

static bool is_reference(const struct wire_device *d)
{
	return d->flags & WIRE_DEVICE_REFERENCE;
}

/* Are there several ways to the card of way @at? */
static bool is_shared(const struct report *r, int at)
{
	const char *card = r->ways[at].device.card;

	return (at && !strcmp(r->ways[at - 1].device.card, card)) ||
	       (at + 1 < r->n_ways && !strcmp(r->ways[at + 1].device.card, card));
}

static void print_devices(const struct report *r)
{
	char size[32], name[sizeof(r->ways[0].device.description) * 4];

	if (r->n_ways < 0)
		printf("Devices: none, because: %s\n", r->way_err.msg);
	if (r->n_ways < 0 && r->way_err.hint[0])
		printf("  hint: %s\n", r->way_err.hint);
	for (int i = 0; i < r->n_ways; i++) {
		const struct wire_device *d = &r->ways[i].device;

		printf("Device %u: %s%s, %s", d->index,
		       is_reference(d) ? "reference device (host CPU): " : "",
		       str_escape_controls(name, sizeof(name),
					   is_reference(d) ? d->description : d->name),
		       str_bytes(size, sizeof(size), d->memory_total));
		if (is_shared(r, i))
			printf(", a way to card %s", d->card);
		putchar('\n');
	}
}

static json_t *json_of_way(const struct host_way *w)
{
	return json_pack("{s:i, s:s, s:s, s:s, s:i}", "index", (int)w->device.index, "api",
			 w->device.api_name, "name", w->device.name, "runtime", w->runtime,
			 "sessions", (int)w->n_sessions);
}

/* One row per card, with what leads to it. */
static json_t *json_of_cards(const struct report *r)
{
	json_t *cards = json_array(), *ways = NULL;

	for (int i = 0; i < r->n_ways; i++) {
		const struct wire_device *d = &r->ways[i].device;

		if (!i || strcmp(d->card, r->ways[i - 1].device.card)) {
			ways = json_array();
			json_array_append_new(cards,
					      json_pack("{s:s, s:s, s:b, s:I, s:I, s:o}", "id",
							d->card, "description", d->description,
							"reference", is_reference(d), "memory",
							(json_int_t)d->memory_total, "held",
							(json_int_t)r->ways[i].held_bytes, "ways",
							ways));
		}
		json_array_append_new(ways, json_of_way(&r->ways[i]));
	}
	return cards;
}

static int print_json(const struct report *r)
{
	json_t *devices = json_array();
	json_t *root;

	for (int i = 0; i < r->n_ways; i++) {
		const struct wire_device *d = &r->ways[i].device;

		json_array_append_new(devices,
				      json_pack("{s:s, s:s, s:b, s:I, s:s}", "name", d->name,
						"description", d->description, "reference",
						is_reference(d), "memory",
						(json_int_t)d->memory_total, "card", d->card));
	}
	root = json_pack("{s:s?, s:i, s:s, s:s, s:b, s:{s:b, s:b, s:s}, s:o, s:o}",
			 "defaultDistribution", r->have_default ? r->def.name : NULL,
			 "defaultVersion", r->backend ? (int)r->backend->version : 0, "backend",
			 r->backend ? r->backend->title : "none", "reason", r->why, "runtimeKit",
			 r->have_kit, "hugePages", "memory", r->huge_pages.own, "sharedMemory",
			 r->huge_pages.shared, "command", r->huge_pages.command, "devices", devices,
			 "cards", json_of_cards(r));
	json_dumpf(root, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(root);
	return 0;
}

int cmd_status(struct cli *cli, int argc, char **argv)
{
	struct report r = {0};
	bool json = false;
	int id;

	while ((id = options_next(CMD_STATUS, "", argc, argv)) == OPT_STATUS_JSON)
		json = true;
	if (id != OPTIONS_END || optind < argc)
		return cli_usage(CMD_STATUS,
				 id == OPTIONS_WRONG ? options_why() : "it takes no names");
	gather(cli, &r);
	if (json)
		return print_json(&r);
	if (r.have_default)
		printf("Default Distribution: %s\n", r.def.name);
	if (r.backend)
		printf("Default Version: %u\n", r.backend->version);
	printf("Machine back end: %s%s, because: %s\n", r.backend ? r.backend->title : "none",
	       !r.backend || r.backend == backends[0] ? "" : " (shared kernel)", r.why);
	if (r.backend == backends[0])
		printf("Huge pages: %s\n", r.huge_pages.text);
	printf("Runtime kit: %s\n", r.have_kit ? "installed" : "not installed (pillion --update)");
	print_devices(&r);
	return 0;
}
