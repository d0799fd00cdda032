/* SPDX-License-Identifier: Apache-2.0
 *
 * abi.h -- the binary interface between a program's ggml and its back end plugins, as we declare
 * it.
 *
 * ggml installs no header for it, and this library must load into programs with different ggmls, so
 * the layouts are written down here; those that the executor needs too are in ggml_abi.h.
 * Generation 2 is ggml 0.25, generation 3 is 0.26 and 0.27.  They differ in the members of a buffer
 * type only: it exists twice below and is reached through union abi_buffer_type.  Enums of ggml are
 * ints here; their numbers go through opmap.h.
 *
 * A generation that is not listed is refused by program.c before any of this is used. */
#ifndef PIL_ABI_H
#define PIL_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/ggml/ggml_abi.h"

enum abi_generation { ABI_UNKNOWN = 0, ABI_V2 = 2, ABI_V3 = 3 };

enum abi_status { ABI_STATUS_ALLOC_FAILED = -2, ABI_STATUS_FAILED = -1, ABI_STATUS_SUCCESS = 0 };

enum abi_usage { ABI_USAGE_ANY = 0, ABI_USAGE_WEIGHTS = 1, ABI_USAGE_COMPUTE = 2 };

enum abi_device_type { ABI_DEVICE_CPU = 0, ABI_DEVICE_GPU = 1 };

struct ggml_backend;
struct ggml_backend_buffer;
struct ggml_backend_device;
struct ggml_backend_event;
struct ggml_backend_reg;
union abi_buffer_type;

/* ---- buffer types ---- */

struct abi_buffer_type_v2 {
	const char *(*get_name)(union abi_buffer_type *buft);
	struct ggml_backend_buffer *(*alloc_buffer)(union abi_buffer_type *buft, size_t size);
	size_t (*get_alignment)(union abi_buffer_type *buft);
	size_t (*get_max_size)(union abi_buffer_type *buft);
	size_t (*get_alloc_size)(union abi_buffer_type *buft, const struct ggml_tensor *tensor);
	bool (*is_host)(union abi_buffer_type *buft); /* optional */
	struct ggml_backend_device *device;
	void *context;
};

struct abi_buffer_type_v3 {
	const char *(*get_name)(union abi_buffer_type *buft);
	struct ggml_backend_buffer *(*alloc_buffer)(union abi_buffer_type *buft, size_t size);
	struct ggml_backend_buffer *(*alloc_buffer_n)(union abi_buffer_type *buft,
						      struct ggml_tensor **tensors, int n);
	size_t (*get_alignment)(union abi_buffer_type *buft);
	size_t (*get_max_size)(union abi_buffer_type *buft);
	size_t (*get_alloc_size)(union abi_buffer_type *buft, const struct ggml_tensor *tensor);
	size_t (*get_alloc_size_n)(union abi_buffer_type *buft, struct ggml_tensor **tensors,
				   int n);
	bool (*is_host)(union abi_buffer_type *buft); /* optional */
	struct ggml_backend_device *device;
	void *context;
};

union abi_buffer_type {
	struct abi_buffer_type_v2 v2;
	struct abi_buffer_type_v3 v3;
};

/* ---- buffers ---- */

struct ggml_backend_buffer_i {
	void (*free_buffer)(struct ggml_backend_buffer *buffer);
	void *(*get_base)(struct ggml_backend_buffer *buffer);
	int (*init_tensor)(struct ggml_backend_buffer *buffer, struct ggml_tensor *tensor);
	void (*memset_tensor)(struct ggml_backend_buffer *buffer, struct ggml_tensor *tensor,
			      uint8_t value, size_t offset, size_t size);
	void (*set_tensor)(struct ggml_backend_buffer *buffer, struct ggml_tensor *tensor,
			   const void *data, size_t offset, size_t size);
	void (*get_tensor)(struct ggml_backend_buffer *buffer, const struct ggml_tensor *tensor,
			   void *data, size_t offset, size_t size);
	void (*set_tensor_2d)(struct ggml_backend_buffer *buffer, struct ggml_tensor *tensor,
			      const void *data, size_t offset, size_t size, size_t n_copies,
			      size_t stride_tensor, size_t stride_data);
	void (*get_tensor_2d)(struct ggml_backend_buffer *buffer, const struct ggml_tensor *tensor,
			      void *data, size_t offset, size_t size, size_t n_copies,
			      size_t stride_tensor, size_t stride_data);
	bool (*cpy_tensor)(struct ggml_backend_buffer *buffer, const struct ggml_tensor *src,
			   struct ggml_tensor *dst);
	void (*clear)(struct ggml_backend_buffer *buffer, uint8_t value);
	void (*reset)(struct ggml_backend_buffer *buffer);
};

struct ggml_backend_buffer { /* on the heap: ggml releases it with C++ delete, that is free() */
	struct ggml_backend_buffer_i iface;
	union abi_buffer_type *buft;
	void *context;
	size_t size;
	int usage; /* enum abi_usage */
};

/* ---- streams ("backends") and events ---- */

struct ggml_backend_i {
	const char *(*get_name)(struct ggml_backend *backend);
	void (*free)(struct ggml_backend *backend);
	void (*set_tensor_async)(struct ggml_backend *backend, struct ggml_tensor *tensor,
				 const void *data, size_t offset, size_t size);
	void (*get_tensor_async)(struct ggml_backend *backend, const struct ggml_tensor *tensor,
				 void *data, size_t offset, size_t size);
	void (*set_tensor_2d_async)(struct ggml_backend *backend, struct ggml_tensor *tensor,
				    const void *data, size_t offset, size_t size, size_t n_copies,
				    size_t stride_tensor, size_t stride_data);
	void (*get_tensor_2d_async)(struct ggml_backend *backend, const struct ggml_tensor *tensor,
				    void *data, size_t offset, size_t size, size_t n_copies,
				    size_t stride_tensor, size_t stride_data);
	bool (*cpy_tensor_async)(struct ggml_backend *src_backend, struct ggml_backend *dst_backend,
				 const struct ggml_tensor *src, struct ggml_tensor *dst);
	void (*synchronize)(struct ggml_backend *backend);
	void (*graph_plan_create)(void);
	void (*graph_plan_free)(void);
	void (*graph_plan_update)(void);
	void (*graph_plan_compute)(void);
	int (*graph_compute)(struct ggml_backend *backend, struct ggml_cgraph *cgraph);
	void (*event_record)(struct ggml_backend *backend, struct ggml_backend_event *event);
	void (*event_wait)(struct ggml_backend *backend, struct ggml_backend_event *event);
	void (*graph_optimize)(void);
};

struct ggml_backend {
	const uint8_t (*guid)[16];
	struct ggml_backend_i iface;
	struct ggml_backend_device *device;
	void *context;
};

struct ggml_backend_event {
	struct ggml_backend_device *device;
	void *context;
};

/* ---- devices ---- */

struct ggml_backend_dev_props {
	const char *name;
	const char *description;
	size_t memory_free;
	size_t memory_total;
	int type; /* enum abi_device_type */
	const char *device_id;
	struct {
		bool async;
		bool host_buffer;
		bool buffer_from_host_ptr;
		bool events;
		bool mmap_support;
	} caps;
};

struct ggml_backend_device_i {
	const char *(*get_name)(struct ggml_backend_device *dev);
	const char *(*get_description)(struct ggml_backend_device *dev);
	void (*get_memory)(struct ggml_backend_device *dev, size_t *free, size_t *total);
	int (*get_type)(struct ggml_backend_device *dev);
	void (*get_props)(struct ggml_backend_device *dev, struct ggml_backend_dev_props *props);
	struct ggml_backend *(*init_backend)(struct ggml_backend_device *dev, const char *params);
	union abi_buffer_type *(*get_buffer_type)(struct ggml_backend_device *dev);
	union abi_buffer_type *(*get_host_buffer_type)(struct ggml_backend_device *dev);
	struct ggml_backend_buffer *(*buffer_from_host_ptr)(struct ggml_backend_device *dev,
							    void *ptr, size_t size,
							    size_t max_tensor_size);
	bool (*supports_op)(struct ggml_backend_device *dev, const struct ggml_tensor *op);
	bool (*supports_buft)(struct ggml_backend_device *dev, union abi_buffer_type *buft);
	bool (*offload_op)(struct ggml_backend_device *dev, const struct ggml_tensor *op);
	struct ggml_backend_event *(*event_new)(struct ggml_backend_device *dev);
	void (*event_free)(struct ggml_backend_device *dev, struct ggml_backend_event *event);
	void (*event_synchronize)(struct ggml_backend_device *dev,
				  struct ggml_backend_event *event);
};

struct ggml_backend_device {
	struct ggml_backend_device_i iface;
	struct ggml_backend_reg *reg;
	void *context;
};

struct ggml_backend_reg_i {
	const char *(*get_name)(struct ggml_backend_reg *reg);
	size_t (*get_device_count)(struct ggml_backend_reg *reg);
	struct ggml_backend_device *(*get_device)(struct ggml_backend_reg *reg, size_t index);
	void *(*get_proc_address)(struct ggml_backend_reg *reg, const char *name);
};

struct ggml_backend_reg {
	int api_version; /* enum abi_generation */
	struct ggml_backend_reg_i iface;
	void *context;
};

#endif
