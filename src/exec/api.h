/* SPDX-License-Identifier: Apache-2.0
 *
 * api.h -- what an API gives to its executor: a table of functions, one entry of exec_apis[].
 *
 * The functions of a session are called by the session's own thread, one at a time; no other
 * session waits for them.  None may wait for a peer.  What a peer sent is checked here and nowhere
 * else, beyond the size of a frame. */
#ifndef PIL_EXEC_API_H
#define PIL_EXEC_API_H

#include "base/compiler.h"
#include "base/err.h"
#include "exec/card.h"
#include "exec/file_map.h"
#include "wire/api.h"

struct session;

struct exec_opts {
	const char *lib_dir; /* of the vendor's library; NULL: where the dynamic linker finds it */
	const char *device;  /* the one that is going to be opened; NULL: all are listed */
};

/* What the answer to a command says; starts zeroed. */
struct reply {
	uint64_t value;
	const void *data; /* @bytes, until the next command */
	uint32_t bytes;
};

/* The commands of mem.def, for mem.c.  @buffer is what find() returned; offsets and sizes have been
 * compared with its size. */
struct mem_ops {
	enum wire_status (*alloc)(void *state, uint32_t handle, uint64_t bytes);
	bool (*free)(void *state, uint32_t handle);                   /* false: no such handle */
	void *(*find)(void *state, uint32_t handle, uint64_t *bytes); /* NULL: no such handle */
	enum wire_status (*set)(void *state, void *buffer, uint64_t offset, const void *data,
				uint64_t bytes);
	enum wire_status (*get)(void *state, void *buffer, uint64_t offset, void *data,
				uint64_t bytes);
	enum wire_status (*fill)(void *state, void *buffer, uint64_t offset, uint8_t value,
				 uint64_t bytes);

	/* Optional: where the bytes can be read in place; NULL: get() has to copy them. */
	const void *(*peek)(void *state, void *buffer, uint64_t offset, uint64_t bytes);
	/* Optional: where data can be received in place; NULL: by set().  Then received(). */
	void *(*direct)(void *state, void *buffer, uint64_t offset, uint64_t bytes);
	void (*received)(void *state, void *buffer, uint64_t offset, uint64_t bytes);
	/* Optional: the data lies in a file of the program's, which may be kept. */
	enum wire_status (*set_file)(void *state, void *buffer, uint64_t offset,
				     struct file_map *file, uint64_t file_offset, uint64_t bytes);
	/* Optional: a long fill must be one call. */
	bool (*fill_at_once)(void *state, void *buffer, uint64_t offset, uint64_t bytes);
};

struct exec_api {
	const struct wire_api *wire;
	bool per_program; /* an executor serves one program; else all that use the device */
	bool example;     /* for tests: people are not shown its devices */

	/* Once per process: loads the vendor's library. */
	int (*load)(void **host, const struct exec_opts *opts, struct pil_err *err);
	/* What there is, at most @max; api and flags of its kind are filled in by the caller. */
	int (*devices)(void *host, struct wire_device *out, int max);
	/* Opens one, and tells @card of its memory (card_serve()). */
	int (*open)(void **dev, void *host, const char *name, struct card *card,
		    struct pil_err *err);

	const struct mem_ops *mem; /* for wire_api::has_mem */

	/* A session begins: WIRE_OK, or why it is refused; end() follows only on WIRE_OK. */
	enum wire_status (*begin)(void **state, struct session *s, void *dev);
	/* Fills in alignment and max_buffer, and the API's own body (zeroed). */
	void (*welcome)(void *state, struct wire_welcome *welcome, void *body);
	/* One of the API's own commands; @fixed is a copy.  An enum wire_status, which is answered
	 * or noted as the operation's entry says; or -errno, which ends the session: -EPROTO is for
	 * a peer that breaks the rules. */
	int (*command)(void *state, const struct wire_frame *frame, const void *fixed,
		       struct reply *reply);
	/* Optional: may a command take long, beside the turns that it takes? */
	bool (*is_long)(const struct wire_frame *frame);
	/* Optional: what makes all that is computed from here on wrong; NULL: nothing.  It ends the
	 * session. */
	const char *(*fault)(void *state);
	void (*end)(void *state);
};

extern const struct exec_api *const exec_apis[]; /* NULL at the end */

const struct exec_api *exec_api_find(uint64_t id); /* NULL: there is none */

#endif
