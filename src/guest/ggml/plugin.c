/* SPDX-License-Identifier: Apache-2.0
 *
 * plugin.c -- libggml-pillion.so: the door through which a program's ggml comes in.
 *
 * ggml_backend_init() is the only symbol this library exports, and it imports none of ggml.  It
 * either returns the host's devices, or says in one line why there are none and returns NULL, on
 * which every ggml goes on with its own back ends. */
#include <errno.h>
#include <string.h>

#include "api/ggml/ggml.h"
#include "api/ggml/versions.h"
#include "base/log.h"
#include "guest/ggml/gdev.h"
#include "link/channel.h"
#include "link/target.h"

PIL_EXPORT struct ggml_backend_reg *ggml_backend_init(void);

/* ---- ggml's table of a registry ---- */

static const char *reg_get_name(struct ggml_backend_reg *reg)
{
	(void)reg;
	return "Pillion";
}

static size_t reg_get_device_count(struct ggml_backend_reg *reg)
{
	(void)reg;
	return gplugin.n_devices;
}

static struct ggml_backend_device *reg_get_device(struct ggml_backend_reg *reg, size_t index)
{
	(void)reg;
	return index < gplugin.n_devices ? &gplugin.devices[index].abi : NULL;
}

struct reg_feature {
	const char *name;
	const char *value;
};

static struct reg_feature *reg_get_features(struct ggml_backend_reg *reg)
{
	static struct reg_feature features[] = {{"PILLION", "1"}, {NULL, NULL}};

	(void)reg;
	return features;
}

static void *reg_get_proc_address(struct ggml_backend_reg *reg, const char *name)
{
	struct reg_feature *(*features)(struct ggml_backend_reg *) = reg_get_features;
	void *p = NULL;

	(void)reg;
	if (!strcmp(name, "ggml_backend_get_features"))
		memcpy(&p, &features, sizeof(p));
	return p;
}

/* ---- finding the host ---- */

static int find_devices(struct pil_err *err)
{
	struct wire_device devices[WIRE_MAX_DEVICES];
	struct channel_target *target = &gplugin.target;
	uint32_t n = 0;
	int rc;

	rc = target_find(target, &wire_api_ggml, err);
	if (rc)
		return rc;
	rc = channel_list(target, devices, WIRE_MAX_DEVICES, &n, err);
	if (rc)
		return rc;
	for (uint32_t i = 0; i < n; i++)
		gdev_init(&gplugin.devices[i], i, &devices[i]);
	gplugin.n_devices = n;
	return n ? 0 : pil_err_say(err, ENODEV, "the host offers none");
}

struct ggml_backend_reg *ggml_backend_init(void)
{
	const void *caller = __builtin_return_address(0);
	struct pil_err err = {0};

	if (gplugin.n_devices)
		return &gplugin.reg;
	log_init("pillion");
	if (!program_find(&gplugin.program, caller)) {
		log_warn("cannot tell which ggml this program has: running without the device");
		return NULL;
	}
	if (gplugin.program.generation == ABI_UNKNOWN) {
		log_warn("this program's ggml is %s; this plugin knows " GGML_KNOWN_VERSIONS
			 ": running without the device",
			 gplugin.program.version_text);
		return NULL;
	}
	opmap_init(&gplugin.opmap, &gplugin.program);
	gplugin.reg = (struct ggml_backend_reg){
		.api_version = gplugin.program.generation,
		.iface =
			{
				.get_name = reg_get_name,
				.get_device_count = reg_get_device_count,
				.get_device = reg_get_device,
				.get_proc_address = reg_get_proc_address,
			},
	};
	if (find_devices(&err)) {
		log_warn("no device: %s: the program goes on with its CPU; on the host, "
			 "pillion --status says why",
			 err.msg);
		return NULL;
	}
	return &gplugin.reg;
}
