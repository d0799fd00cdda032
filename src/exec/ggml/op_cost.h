/* SPDX-License-Identifier: Apache-2.0
 *
 * op_cost.h -- what a node takes, at most: time, which nobody can take back in the middle of a
 * node, and the memory that a back end keeps for it. */
#ifndef PIL_OP_COST_H
#define PIL_OP_COST_H

#include <stdint.h>

#include "exec/ggml/op_rules.h"

struct op_cost {
	uint64_t time_ns;        /* of one core of a slow CPU; UINT64_MAX: or more */
	uint64_t piece_ns;       /* of the smallest piece it can be computed in */
	uint64_t scratch;        /* bytes shared by all threads of a CPU, see ggml_graph_plan() */
	uint64_t thread_scratch; /* and for each of them */
};

/* Of a node that has passed @rule. */
struct op_cost op_cost_of(const struct op_rule *rule, const struct op_args *a);

#endif
