/* SPDX-License-Identifier: Apache-2.0
 *
 * log.h -- one line per event on stderr, lower case, no full stop: "vsock: guest cid 3 in use".
 *
 * The level comes from PILLION_LOG (err, warn, info, dbg; default warn).  Text from a peer goes
 * through str_escape() first.  Thread-safe: a line is one write. */
#ifndef PIL_LOG_H
#define PIL_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

enum log_level { LOG_LEVEL_ERR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DBG, LOG_NUM_LEVELS };

void log_init(const char *program); /* borrowed; prefix of each line; reads PILLION_LOG */
bool log_enabled(enum log_level level);
void log_write(enum log_level level, const char *fmt, ...) PIL_PRINTF(2, 3);

#define log_err(...)  log_write(LOG_LEVEL_ERR, __VA_ARGS__)
#define log_warn(...) log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_dbg(...)                                                                               \
	do {                                                                                       \
		if (log_enabled(LOG_LEVEL_DBG))                                                    \
			log_write(LOG_LEVEL_DBG, __VA_ARGS__);                                     \
	} while (0)

/* For what a peer can provoke at will: true at most once a second per @limit, which starts zeroed
 * and counts what was held back. */
struct log_limit {
	int64_t last_ms;
	unsigned held_back;
};
bool log_allowed(struct log_limit *limit);

#endif
