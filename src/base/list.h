/* SPDX-License-Identifier: Apache-2.0
 *
 * list.h -- intrusive doubly linked list.  A head says what hangs on it:
 * `struct list sessions; // session::link`.  A node not on a list points at itself. */
#ifndef PIL_LIST_H
#define PIL_LIST_H

#include <stdbool.h>

#include "base/compiler.h"

struct list {
	struct list *prev, *next;
};

static inline void list_init(struct list *l)
{
	l->prev = l->next = l;
}

static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}

static inline void list_append(struct list *head, struct list *node)
{
	node->prev = head->prev;
	node->next = head;
	head->prev->next = node;
	head->prev = node;
}

static inline void list_remove(struct list *node) /* twice is fine */
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	list_init(node);
}

#define list_entry(node, type, member) container_of(node, type, member)

#define list_for_each(it, head, member)                                                            \
	for (it = list_entry((head)->next, __typeof__(*it), member); &it->member != (head);        \
	     it = list_entry(it->member.next, __typeof__(*it), member))

/* @tmp keeps the next element, so that @it may be removed and freed. */
#define list_for_each_safe(it, tmp, head, member)                                                  \
	for (it = list_entry((head)->next, __typeof__(*it), member),                               \
	    tmp = list_entry(it->member.next, __typeof__(*it), member);                            \
	     &it->member != (head);                                                                \
	     it = tmp, tmp = list_entry(it->member.next, __typeof__(*it), member))

#endif
