/* SPDX-License-Identifier: Apache-2.0
 *
 * ggml_api.h -- the part of ggml's C interface the executor calls, resolved at run time.
 *
 * The executor is not linked with ggml: it loads the libggml of the runtime root, or of
 * accel.ggml_dir, whichever version that is.  The public interface is declared here with our own
 * names for its types; the public functions did not change from ggml 0.25 to 0.27.  Tensors and
 * graphs are in ggml_abi.h; of a graph one field is used here, uid. */
#ifndef PIL_GGML_API_H
#define PIL_GGML_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/ggml/ggml_abi.h"

struct ggml_context;
struct ggml_backend;
struct ggml_backend_buffer;
struct ggml_backend_buffer_type;
struct ggml_backend_device;
struct ggml_backend_reg;

struct ggml_init_params {
	size_t mem_size;
	void *mem_buffer;
	bool no_alloc;
};

enum ggml_device_type {
	GGML_DEVICE_CPU,
	GGML_DEVICE_GPU,
	GGML_DEVICE_IGPU,
	GGML_DEVICE_ACCEL,
	GGML_DEVICE_META
};
enum ggml_tensor_flag {
	GGML_FLAG_INPUT = 1,
	GGML_FLAG_OUTPUT = 2,
	GGML_FLAG_PARAM = 4,
	GGML_FLAG_LOSS = 8,
	GGML_FLAG_COMPUTE = 16
};
struct ggml_device_props {
	const char *name, *description;
	size_t memory_free, memory_total;
	int type;
	const char *device_id; /* a PCI address; NULL: it has none, or does not say */
	bool caps[5];
	char room[128]; /* for what a newer one has more */
};
enum { GGML_USAGE_ANY, GGML_USAGE_WEIGHTS, GGML_USAGE_COMPUTE };
enum {
	GGML_T_F32 = 0,
	GGML_T_I8 = 24,
	GGML_T_I32 = 26,
	GGML_T_I64 = 27
}; /* fixed by the GGUF format */

/* FN(return type, name, arguments): the functions resolved from libggml / libggml-base. */
#define GGML_API_FUNCTIONS(FN)                                                                     \
	FN(const char *, ggml_version, (void))                                                     \
	FN(const char *, ggml_op_name, (int))                                                      \
	FN(const char *, ggml_unary_op_name, (int))                                                \
	FN(const char *, ggml_glu_op_name, (int))                                                  \
	FN(int64_t, ggml_blck_size, (int))                                                         \
	FN(size_t, ggml_type_size, (int))                                                          \
	FN(size_t, ggml_nbytes, (const struct ggml_tensor *))                                      \
	FN(struct ggml_context *, ggml_init, (struct ggml_init_params))                            \
	FN(void, ggml_free, (struct ggml_context *))                                               \
	FN(size_t, ggml_tensor_overhead, (void))                                                   \
	FN(size_t, ggml_graph_overhead_custom, (size_t, bool))                                     \
	FN(struct ggml_cgraph *, ggml_new_graph_custom, (struct ggml_context *, size_t, bool))     \
	FN(struct ggml_tensor *, ggml_new_tensor,                                                  \
	   (struct ggml_context *, int, int, const int64_t *))                                     \
	FN(void, ggml_build_forward_expand, (struct ggml_cgraph *, struct ggml_tensor *))          \
	FN(void, ggml_backend_load_all, (void))                                                    \
	FN(void, ggml_backend_load_all_from_path, (const char *))                                  \
	FN(size_t, ggml_backend_dev_count, (void))                                                 \
	FN(struct ggml_backend_device *, ggml_backend_dev_get, (size_t))                           \
	FN(const char *, ggml_backend_dev_name, (struct ggml_backend_device *))                    \
	FN(const char *, ggml_backend_dev_description, (struct ggml_backend_device *))             \
	FN(void, ggml_backend_dev_memory, (struct ggml_backend_device *, size_t *, size_t *))      \
	FN(int, ggml_backend_dev_type, (struct ggml_backend_device *))                             \
	FN(void, ggml_backend_dev_get_props,                                                       \
	   (struct ggml_backend_device *, struct ggml_device_props *))                             \
	FN(struct ggml_backend_reg *, ggml_backend_dev_backend_reg,                                \
	   (struct ggml_backend_device *))                                                         \
	FN(struct ggml_backend *, ggml_backend_dev_init,                                           \
	   (struct ggml_backend_device *, const char *))                                           \
	FN(struct ggml_backend_buffer_type *, ggml_backend_dev_buffer_type,                        \
	   (struct ggml_backend_device *))                                                         \
	FN(bool, ggml_backend_dev_supports_op,                                                     \
	   (struct ggml_backend_device *, const struct ggml_tensor *))                             \
	FN(bool, ggml_backend_dev_offload_op,                                                      \
	   (struct ggml_backend_device *, const struct ggml_tensor *))                             \
	FN(void *, ggml_backend_reg_get_proc_address, (struct ggml_backend_reg *, const char *))   \
	FN(struct ggml_backend_buffer *, ggml_backend_buft_alloc_buffer,                           \
	   (struct ggml_backend_buffer_type *, size_t))                                            \
	FN(size_t, ggml_backend_buft_get_alignment, (struct ggml_backend_buffer_type *))           \
	FN(size_t, ggml_backend_buft_get_max_size, (struct ggml_backend_buffer_type *))            \
	FN(size_t, ggml_backend_buft_get_alloc_size,                                               \
	   (struct ggml_backend_buffer_type *, const struct ggml_tensor *))                        \
	FN(bool, ggml_backend_buft_is_host, (struct ggml_backend_buffer_type *))                   \
	FN(void, ggml_backend_buffer_free, (struct ggml_backend_buffer *))                         \
	FN(void *, ggml_backend_buffer_get_base, (struct ggml_backend_buffer *))                   \
	FN(int, ggml_backend_buffer_init_tensor,                                                   \
	   (struct ggml_backend_buffer *, struct ggml_tensor *))                                   \
	FN(void, ggml_backend_buffer_clear, (struct ggml_backend_buffer *, uint8_t))               \
	FN(void, ggml_backend_buffer_set_usage, (struct ggml_backend_buffer *, int))               \
	FN(void, ggml_backend_tensor_set, (struct ggml_tensor *, const void *, size_t, size_t))    \
	FN(void, ggml_backend_tensor_get, (const struct ggml_tensor *, void *, size_t, size_t))    \
	FN(void, ggml_backend_tensor_memset, (struct ggml_tensor *, uint8_t, size_t, size_t))      \
	FN(int, ggml_backend_graph_compute, (struct ggml_backend *, struct ggml_cgraph *))         \
	FN(void, ggml_backend_free, (struct ggml_backend *))

struct ggml_api {
#define GGML_API_FIELD(ret, name, args) ret(*name) args;
	GGML_API_FUNCTIONS(GGML_API_FIELD)
#undef GGML_API_FIELD
};

#endif
