/* SPDX-License-Identifier: Apache-2.0
 *
 * Loads the host's ggml and all of its back ends.
 *
 * Theory of operation: names are mapped to numbers of our own once, when ggml is loaded.  ggml's
 * name functions are look-ups in arrays without a bound, so only a version whose numbers are known
 * here is asked; any other one is refused. */
#include "exec/ggml/ggml_host.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/ggml/versions.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "base/str.h"

/* How many of each a known ggml has.  The name functions are array look-ups without a bound, so a
 * version that is not listed cannot be asked. */
struct known_version {
	const char *prefix;
	int n_ops, n_unary, n_glu, n_types;
	bool bf16_maps;
};
static const struct known_version known_versions[] = {
	{"0.25.", ABI_NUM_OPS, ABI_NUM_UNARY, ABI_NUM_GLU, ABI_NUM_TYPES, false},
	{"0.26.", ABI_NUM_OPS, ABI_NUM_UNARY, ABI_NUM_GLU, ABI_NUM_TYPES, false},
	{"0.27.", ABI_NUM_OPS, ABI_NUM_UNARY, ABI_NUM_GLU, ABI_NUM_TYPES, true},
};
static_assert(ARRAY_SIZE(known_versions) == GGML_NEWEST_MINOR - GGML_OLDEST_MINOR + 1,
	      "versions.h");

static const struct known_version *find_version(const char *version)
{
	for (size_t i = 0; i < ARRAY_SIZE(known_versions); i++)
		if (!strncmp(version, known_versions[i].prefix, strlen(known_versions[i].prefix)))
			return &known_versions[i];
	return NULL;
}

static void *open_library(const char *dir, const char *name, struct pil_err *err)
{
	static const char *const suffixes[] = {".so.0", ".so"};

	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		_auto_free char *path = dir ? str_printf("%s/%s%s", dir, name, suffixes[i])
					    : str_printf("%s%s", name, suffixes[i]);
		void *lib = dlopen(path, RTLD_NOW | RTLD_GLOBAL);

		if (lib)
			return lib;
		if (!dir || path_exists(path))
			pil_err_say(err, ENOENT, "load ggml: %s", dlerror());
	}
	if (err && !err->code)
		pil_err_say(err, ENOENT, "load ggml: no %s.so in '%s'", name, dir);
	pil_err_hint(err, "set ggml_dir in the [accel] section to a folder that holds libggml.so");
	return NULL;
}

static int resolve_api(struct ggml_host *host, void *lib, struct pil_err *err)
{
	static const struct {
		const char *name;
		size_t offset;
	} functions[] = {
#define GGML_API_ENTRY(ret, name, args) {#name, offsetof(struct ggml_api, name)},
		GGML_API_FUNCTIONS(GGML_API_ENTRY)
#undef GGML_API_ENTRY
	};

	for (size_t i = 0; i < ARRAY_SIZE(functions); i++) {
		void *f = dlsym(lib, functions[i].name); /* looks in its dependencies too */

		if (!f)
			return pil_err_say(err, ENOSYS, "load ggml: it has no function %s",
					   functions[i].name);
		*(void **)((char *)&host->api + functions[i].offset) = f;
	}
	return 0;
}

static void map_names(int *to_host, const char *const *names, int n_names,
		      const char *(*name_of)(int), int count)
{
	for (int i = 0; i < n_names; i++)
		to_host[i] = -1;
	for (int i = 0; i < count; i++) {
		int stable = wire_name_find(names, n_names, name_of(i));

		if (stable >= 0)
			to_host[stable] = i;
	}
}

static void map_types(struct ggml_host *host, int n_types)
{
	for (int i = 0; i < n_types && i < WIRE_MAX_TYPES; i++) {
		host->types.block[i] = (uint32_t)host->api.ggml_blck_size(i);
		host->types.bytes[i] = (uint32_t)host->api.ggml_type_size(i);
		if (!host->types.block[i] || !host->types.bytes[i])
			host->types.block[i] = host->types.bytes[i] =
				0; /* a number no longer used */
	}
}

int ggml_host_load(struct ggml_host **out, const char *ggml_dir, struct pil_err *err)
{
	_auto_free struct ggml_host *host = calloc(1, sizeof(*host));
	const struct known_version *known;
	void *lib;
	int ret;

	if (!host)
		return pil_err_set(err, ENOMEM, "load ggml");
	unsetenv("GGML_BACKEND_PATH"); /* else it would load the guest's plugin into the executor */
	if (ggml_dir && !open_library(ggml_dir, "libggml-base", err))
		return -ENOENT;
	lib = open_library(ggml_dir, "libggml", err);
	if (!lib)
		return -ENOENT;
	if (err)
		*err = (struct pil_err){0};
	ret = resolve_api(host, lib, err);
	if (ret)
		return ret;
	/* NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage): resolve_api() has found it */
	snprintf(host->version, sizeof(host->version), "%s", host->api.ggml_version());
	known = find_version(host->version);
	if (!known)
		return pil_err_say(err, ENOTSUP,
				   "load ggml: version %s; this pillion knows " GGML_KNOWN_VERSIONS,
				   host->version);
	if (ggml_dir)
		host->api.ggml_backend_load_all_from_path(ggml_dir);
	else
		host->api.ggml_backend_load_all();
	map_names(host->op_to_host, wire_tensor_op_str, WIRE_NUM_TENSOR_OPS, host->api.ggml_op_name,
		  known->n_ops);
	map_names(host->unary_to_host, wire_unary_op_str, WIRE_NUM_UNARY_OPS,
		  host->api.ggml_unary_op_name, known->n_unary);
	map_names(host->glu_to_host, wire_glu_op_str, WIRE_NUM_GLU_OPS, host->api.ggml_glu_op_name,
		  known->n_glu);
	map_types(host, known->n_types);
	host->types.bf16_maps = known->bf16_maps;
	*out = pil_take_ptr(&host);
	return 0;
}

int ggml_host_devices(struct ggml_host *host, struct wire_device *out, int max)
{
	const struct ggml_api *api = &host->api;
	size_t count = api->ggml_backend_dev_count();
	int n = 0;

	for (size_t i = 0; i < count && n < max; i++) {
		struct ggml_backend_device *dev = api->ggml_backend_dev_get(i);
		struct wire_device *d = &out[n];
		struct ggml_device_props props = {0};
		size_t free_bytes = 0, total_bytes = 0;
		int type = api->ggml_backend_dev_type(dev);

		if (type == GGML_DEVICE_META)
			continue;
		*d = (struct wire_device){.index = (uint32_t)i};
		api->ggml_backend_dev_memory(dev, &free_bytes, &total_bytes);
		d->memory_free = free_bytes;
		d->memory_total = total_bytes;
		if (type == GGML_DEVICE_CPU)
			d->flags |= WIRE_DEVICE_REFERENCE;
		if (type == GGML_DEVICE_IGPU)
			d->flags |= WIRE_DEVICE_INTEGRATED;
		api->ggml_backend_dev_get_props(dev, &props);
		if (props.device_id) /* the broker gives the others a name */
			snprintf(d->card, sizeof(d->card), "%s", props.device_id);
		snprintf(d->name, sizeof(d->name), "%s", api->ggml_backend_dev_name(dev));
		snprintf(d->description, sizeof(d->description), "%s",
			 api->ggml_backend_dev_description(dev));
		n++;
	}
	return n;
}

void ggml_host_destroy(struct ggml_host *host)
{
	free(host);
}
