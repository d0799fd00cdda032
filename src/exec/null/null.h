/* SPDX-License-Identifier: Apache-2.0
 *
 * null.h -- the executor's half of null (api/null/null.h). */
#ifndef PIL_EXEC_NULL_H
#define PIL_EXEC_NULL_H

#include "exec/api.h"

extern const struct exec_api exec_api_null;

#endif
