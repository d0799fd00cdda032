/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: what a node takes depends on four things that machines differ in, and that a
 * neighbour takes away: arithmetic, arithmetic with numbers too small for fast paths, memory in a
 * row, and memory here and there.  Each is done a little, in processor time, and compared to what
 * it takes on a quiet core of the machine of the table.  The slowest counts. */
#include "lib/core_probe.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/compiler.h"

enum {
	SUMS = 200000,
	TINY_SUMS = 10000,
	COPIED = 4 << 20,  /* bytes */
	LOOKED_UP = 10000, /* places */
	MEMORY = 64 << 20, /* bytes in which they are */
};

static uint8_t *memory;
static uint32_t place;
static volatile float sink;

static void sum_up(void)
{
	volatile float start = 1.0f;
	float x = start;

	for (int i = 0; i < SUMS; i++)
		x = x * 0.999f + 0.5f;
	sink = x;
}

static void sum_up_tiny(void)
{
	volatile float start = 1e-40f;
	float x = start, sum = 0;

	for (int i = 0; i < TINY_SUMS; i++)
		sum = sum * 0.5f + x;
	sink = sum;
}

static void copy(void)
{
	static uint32_t turn;
	uint8_t *from = memory + (size_t)(turn++ % 8) * COPIED;

	memcpy(from + MEMORY / 2, from, COPIED);
}

/* Each place says, with the turn, where the next one is. */
static void look_up(void)
{
	for (uint32_t i = 0; i < LOOKED_UP; i++) {
		uint32_t there;

		memcpy(&there, memory + place, sizeof(there));
		place = ((place + there + i) * 1664525u + 1013904223u) % MEMORY & ~63u;
	}
}

static const struct {
	void (*work)(void);
	int64_t quiet_ns;
} parts[] = {
	{sum_up, 470000},
	{sum_up_tiny, 421000},
	{copy, 425000},
	{look_up, 1380000},
};

static int64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* The less of two: a moment's disturbance is not this core. */
static int64_t part_ns(void (*work)(void))
{
	int64_t least = INT64_MAX;

	for (int i = 0; i < 2; i++) {
		int64_t started = cpu_ns(), took;

		work();
		took = cpu_ns() - started;
		if (took < least)
			least = took;
	}
	return least;
}

double core_probe_slowness(void)
{
	double most = 1;

	if (!memory) {
		memory = malloc(MEMORY);
		if (!memory)
			abort();
		memset(memory, 1, MEMORY);
	}
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		double times = (double)part_ns(parts[i].work) / (double)parts[i].quiet_ns;

		if (times > most)
			most = times;
	}
	return most > CORE_PROBE_MOST ? CORE_PROBE_MOST : most;
}
