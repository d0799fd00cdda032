/* SPDX-License-Identifier: Apache-2.0 */
#include "graph_build.h"

static const char BY_ITS_READER[] = "an index that its reader writes to";

/* Tensor @i, and nothing else, is looked at just before tensor @reader is computed. */
static void assert_stop(uint32_t i, uint32_t reader, int64_t limit)
{
	assert_passes();
	assert_int_equal(b.needs.n_stops, 1);
	assert_int_equal(b.needs.n_index, 1);
	assert_int_equal(b.index[0].tensor, i - 1);
	assert_int_equal(b.index[0].before, reader - 1);
	assert_int_equal(b.index[0].limit, limit);
}

static void test_an_index_overwritten_before_its_use_is_looked_at_there(void **state)
{
	uint32_t table, x, index, rows, y;
	(void)state;
	table = input(OP_F32, 16, 100, 1);
	index = input(OP_I32, 16, 1, 1);
	x = input(OP_F32, 16, 1, 1);
	y = like(WIRE_T_SQR, x, 0);
	rows = node(WIRE_T_GET_ROWS, 16, 16, 1, table, index);
	assert_passes();
	assert_int_equal(b.needs.n_index, 1);
	assert_int_equal(b.needs.n_stops, 0);
	at(y)->offset = at(index)->offset;
	assert_stop(index, rows, 100);
	at(y)->offset += 60; /* the last element only */
	assert_stop(index, rows, 100);
	at(rows)->offset = at(index)->offset; /* by the reader itself */
	assert_refused(rows, BY_ITS_READER);
	at(y)->offset += 4; /* behind it, where x is */
	assert_refused(rows, BY_ITS_READER);
	at(rows)->offset = at(index)->offset + 64;
	assert_passes();
	assert_int_equal(b.needs.n_stops, 0);
}

static void test_an_index_overwritten_between_two_uses_is_looked_at_twice(void **state)
{
	uint32_t table, x, index, y, second;
	(void)state;
	table = input(OP_F32, 16, 100, 1);
	index = input(OP_I32, 16, 1, 1);
	x = input(OP_F32, 16, 1, 1);
	node(WIRE_T_GET_ROWS, 16, 16, 1, table, index);
	y = like(WIRE_T_SQR, x, 0);
	second = node(WIRE_T_GET_ROWS, 16, 16, 1, table, index);
	assert_passes();
	assert_int_equal(b.needs.n_index, 1);
	at(y)->offset = at(index)->offset;
	assert_passes();
	assert_int_equal(b.needs.n_index, 2);
	assert_int_equal(b.index[0].before, 0);
	assert_int_equal(b.index[1].before, second - 1);
	assert_int_equal(b.index[1].tensor, index - 1);
}

/* One stop for all who read the same, until it is written to again. */
static void test_a_look_holds_until_the_next_writer(void **state)
{
	uint32_t table, small, x, index, y, first, v;
	(void)state;
	table = input(OP_F32, 16, 100, 1);
	small = input(OP_F32, 16, 10, 1);
	index = input(OP_I32, 16, 1, 1);
	x = input(OP_F32, 16, 1, 1);
	at(like(WIRE_T_SQR, x, 0))->offset = at(index)->offset;
	first = node(WIRE_T_GET_ROWS, 16, 16, 1, table, index);
	node(WIRE_T_GET_ROWS, 16, 16, 1, small, index);
	assert_stop(index, first, 10);
	v = view(WIRE_T_VIEW, index, 4, 1, 1, 16);
	node(WIRE_T_GET_ROWS, 16, 4, 1, table, v);
	assert_passes();
	assert_int_equal(b.needs.n_stops, 1);
	assert_int_equal(b.needs.n_index, 2);
	assert_int_equal(b.index[1].tensor, v - 1);
	assert_int_equal(b.index[1].before, first - 1);
	y = like(WIRE_T_SQR, x, 0);
	at(y)->offset = at(index)->offset;
	v = node(WIRE_T_GET_ROWS, 16, 16, 1, table, index);
	assert_passes();
	assert_int_equal(b.needs.n_stops, 2);
	assert_int_equal(b.index[b.needs.n_index - 1].before, v - 1);
}

/* Rows that an index picks out of a table need not be all of it: a map of what is cached. */
static void test_picked_rows_are_looked_at_and_not_the_table(void **state)
{
	uint32_t map, ids, picked, table, rows;
	(void)state;
	map = input(OP_I32, 1, 64, 1);
	ids = input(OP_I32, 4, 1, 1);
	picked = as_node(input(OP_I32, 1, 4, 1), WIRE_T_GET_ROWS, map, ids, 0);
	table = input(OP_F32, 16, 4, 1);
	rows = node(WIRE_T_GET_ROWS, 16, 4, 1, table, view(WIRE_T_RESHAPE, picked, 4, 1, 1, 0));
	assert_passes();
	assert_int_equal(b.needs.n_index, 2);
	assert_int_equal(b.index[0].tensor, ids - 1);
	assert_int_equal(b.index[0].before, 0);
	assert_int_equal(b.index[1].tensor, rows - 2);
	assert_int_equal(b.index[1].before, rows - 1);
	assert_int_equal(b.index[1].limit, 4);
}

/* An optimizer writes to more than its result. */
static void test_what_an_optimizer_keeps_is_written_to(void **state)
{
	uint32_t table, w, grad, m, v, params, step, index, rows;
	(void)state;
	table = input(OP_F32, 16, 32, 1);
	w = input(OP_F32, 32, 4, 1);
	grad = input(OP_F32, 32, 4, 1);
	m = input(OP_F32, 32, 4, 1);
	v = input(OP_F32, 32, 4, 1);
	params = input(OP_F32, 7, 1, 1);
	index = input(OP_I32, 32, 1, 1);
	step = view(WIRE_T_VIEW, w, 32, 4, 1, 0);
	as_node(step, WIRE_T_OPT_STEP_ADAMW, w, grad, m);
	at(step)->src[3] = v;
	at(step)->src[4] = params;
	rows = node(WIRE_T_GET_ROWS, 16, 32, 1, table, index);
	assert_passes();
	assert_int_equal(b.needs.n_stops, 0);
	at(index)->offset = at(grad)->offset; /* which it only reads */
	assert_passes();
	assert_int_equal(b.needs.n_stops, 0);
	at(index)->offset = at(m)->offset + 128;
	assert_stop(index, rows, 32);
	at(index)->offset = at(v)->offset + 384;
	assert_stop(index, rows, 32);
	at(index)->offset = at(w)->offset;
	assert_stop(index, rows, 32);
	at(step)->offset = at(m)->offset; /* not where the weights are */
	at(step)->view_src = 0;
	assert_refused(step, "weights that are not the result");
}

static void test_stops_are_bounded(void **state)
{
	uint32_t table, x, index;
	(void)state;
	table = input(OP_F32, 16, 4, 1);
	x = input(OP_F32, 1, 1, 1);
	index = input(OP_I32, 1, 1, 1);
	for (int i = 0; i <= GRAPH_MAX_STOPS; i++) {
		at(like(WIRE_T_SQR, x, 0))->offset = at(index)->offset;
		node(WIRE_T_GET_ROWS, 16, 1, 1, table, index);
	}
	assert_false(check());
	assert_string_equal(b.fault.why, "too many indices computed by the graph");
	b.n -= 2;
	assert_passes();
	assert_int_equal(b.needs.n_stops, GRAPH_MAX_STOPS);
}

static void test_a_sort_is_an_index_if_its_rows_are_short_enough(void **state)
{
	uint32_t table, x, sorted, rows, copy;
	(void)state;
	table = input(OP_F32, 16, 32, 1);
	x = input(OP_F32, 32, 1, 1);
	sorted = as_node(input(OP_I32, 32, 1, 1), WIRE_T_ARGSORT, x, 0, 0);
	copy = as_node(input(OP_I32, 32, 1, 1), WIRE_T_CONT, sorted, 0, 0);
	rows = node(WIRE_T_GET_ROWS, 16, 32, 1, table, sorted);
	assert_passes();
	assert_int_equal(b.needs.n_index, 0);
	at(rows)->src[1] = copy;
	assert_passes();
	at(table)->ne[1] = 31;
	strides(at(table));
	assert_stop(copy, rows, 31);
	at(table)->ne[1] = 32;
	strides(at(table));
	at(sorted)->offset = at(x)->offset;
	assert_refused(sorted, "a sort into its own source");
}

/* What lies where a sort writes, and is not seen to use it, may be left unwritten. */
static void test_a_sort_is_an_index_for_its_views_alone(void **state)
{
	uint32_t table, x, sorted, other, rows, v;
	(void)state;
	table = input(OP_F32, 16, 32, 1);
	x = input(OP_F32, 32, 1, 1);
	sorted = as_node(input(OP_I32, 32, 1, 1), WIRE_T_ARGSORT, x, 0, 0);
	v = view(WIRE_T_VIEW, sorted, 4, 1, 1, 0);
	node(WIRE_T_GET_ROWS, 16, 4, 1, table, v);
	assert_passes();
	other = input(OP_I32, 4, 1, 1);
	at(other)->offset = at(sorted)->offset + 64;
	rows = node(WIRE_T_GET_ROWS, 16, 4, 1, table, other);
	assert_stop(other, rows, 32);
	at(other)->view_src = sorted; /* but no edge */
	at(other)->view_offset = 64;
	assert_stop(other, rows, 32);
}

/* What the program builds and leaves out writes nothing, and its own index may be anything. */
static void test_a_node_that_is_not_computed_is_data(void **state)
{
	uint32_t table, x, sorted, rows;
	(void)state;
	table = input(OP_F32, 16, 32, 1);
	x = input(OP_F32, 32, 1, 1);
	sorted = as_node(input(OP_I32, 32, 1, 1), WIRE_T_ARGSORT, x, 0, 0);
	rows = node(WIRE_T_GET_ROWS, 16, 32, 1, table, sorted);
	at(sorted)->flags = WIRE_TENSOR_NODE;
	assert_passes(); /* what is there now is looked at before each run */
	assert_int_equal(b.needs.n_index, 1);
	assert_int_equal(b.index[0].tensor, sorted - 1);
	at(rows)->flags = WIRE_TENSOR_NODE;
	assert_passes();
	assert_int_equal(b.needs.n_index, 0);
	assert_true(graph_idle(at(rows)));
	at(rows)->ne[0] = 15; /* it has to be sound all the same */
	strides(at(rows));
	assert_refused(rows, "shapes that do not fit together");
}

static void test_an_index_made_from_floats_is_looked_at(void **state)
{
	uint32_t table, x, target, ids, rows;
	(void)state;
	table = input(OP_F32, 16, 32, 1);
	x = input(OP_F32, 32, 1, 1);
	target = input(OP_I32, 32, 1, 1);
	ids = view(WIRE_T_CPY, target, 32, 1, 1, 0);
	as_node(ids, WIRE_T_CPY, x, target, 0);
	rows = node(WIRE_T_GET_ROWS, 16, 32, 1, table, ids);
	assert_stop(ids, rows, 32);
}

static void test_the_smallest_limit_of_all_uses_counts(void **state)
{
	uint32_t index, large, small;
	(void)state;
	index = input(OP_I32, 4, 1, 1);
	large = input(OP_F32, 16, 100, 1);
	small = input(OP_F32, 16, 10, 1);
	node(WIRE_T_GET_ROWS, 16, 4, 1, large, index);
	node(WIRE_T_GET_ROWS, 16, 4, 1, small, view(WIRE_T_VIEW, index, 4, 1, 1, 0));
	assert_passes();
	assert_int_equal(b.needs.n_index, 1);
	assert_int_equal(b.index[0].limit, 10);
}

static void test_the_search_for_writers_is_bounded(void **state)
{
	uint32_t table, x;
	(void)state;
	table = input(OP_F32, 16, 4, 1);
	x = input(OP_F32, 16, 1, 1);
	for (int i = 0; i < 1100; i++)
		like(WIRE_T_SQR, x, 0);
	for (int i = 0; i < 900; i++)
		node(WIRE_T_GET_ROWS, 16, 1, 1, table, input(OP_I32, 1, 1, 1));
	assert_false(check()); /* the index table is full, or the search given up */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_an_index_overwritten_before_its_use_is_looked_at_there,
				       begin),
		cmocka_unit_test_setup(
			test_an_index_overwritten_between_two_uses_is_looked_at_twice, begin),
		cmocka_unit_test_setup(test_a_look_holds_until_the_next_writer, begin),
		cmocka_unit_test_setup(test_picked_rows_are_looked_at_and_not_the_table, begin),
		cmocka_unit_test_setup(test_what_an_optimizer_keeps_is_written_to, begin),
		cmocka_unit_test_setup(test_stops_are_bounded, begin),
		cmocka_unit_test_setup(test_a_sort_is_an_index_if_its_rows_are_short_enough, begin),
		cmocka_unit_test_setup(test_a_sort_is_an_index_for_its_views_alone, begin),
		cmocka_unit_test_setup(test_a_node_that_is_not_computed_is_data, begin),
		cmocka_unit_test_setup(test_an_index_made_from_floats_is_looked_at, begin),
		cmocka_unit_test_setup(test_the_smallest_limit_of_all_uses_counts, begin),
		cmocka_unit_test_setup(test_the_search_for_writers_is_bounded, begin),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
