/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: what machines share is a card, and not a device of some API: "CUDA0" and
 * "Vulkan0" may be the same silicon.  An executor's back end knows the PCI address of most cards;
 * that is the card's name, today and after a restart of anything.  What has none is a card by
 * itself: "cpu", or the name of the device.  An executor that lies about an address can make two
 * cards one or one card two, no more.
 *
 * A card's ledger is made when its first executor starts, and lives as long as the broker.  When
 * the broker is started anew, executors of the old one keep the old ledger until their last session
 * ends.  Until then a machine can get its quota once more.
 *
 * Executors report how often they found the ledger changed by somebody else.  A broker that was
 * stopped, or a process, explains a few.  After CARDS_MAX_FAULTS one of the card's executors is
 * hostile or broken, and nobody can tell which: all of them are ended. */
#include "broker/cards.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "broker/jail.h"

/* "0000:01:00.0", in any case. */
static bool is_pci_address(const char *text)
{
	static const char form[] = "xxxx:xx:xx.x";
	size_t i = 0;

	for (; form[i] && text[i]; i++)
		if (form[i] == 'x' ? !isxdigit((unsigned char)text[i]) : text[i] != form[i])
			return false;
	return !form[i] && !text[i];
}

void cards_name(struct wire_device *d)
{
	d->card[sizeof(d->card) - 1] = '\0';
	if (d->flags & WIRE_DEVICE_REFERENCE) {
		snprintf(d->card, sizeof(d->card), "cpu");
	} else if (is_pci_address(d->card)) {
		for (char *c = d->card; *c; c++)
			*c = (char)tolower((unsigned char)*c);
	} else {
		snprintf(d->card, sizeof(d->card), "%.*s", (int)sizeof(d->card) - 1, d->name);
	}
}

struct cards_row *cards_get(struct cards *cards, const char *id)
{
	struct cards_row *row;

	for (int i = 0; i < cards->n; i++)
		if (!strcmp(cards->rows[i].id, id))
			return &cards->rows[i];
	if (cards->n == WIRE_MAX_DEVICES)
		return NULL;
	row = &cards->rows[cards->n++];
	*row = (struct cards_row){.ledger.fd = -1};
	snprintf(row->id, sizeof(row->id), "%s", id);
	return row;
}

void cards_finish(struct cards *cards)
{
	for (int i = 0; i < cards->n; i++)
		ledger_file_finish(&cards->rows[i].ledger);
	cards->n = 0;
}

int cards_join(struct cards_row *row, const struct wire_device *device, struct pil_err *err)
{
	int n_spare = device->flags & WIRE_DEVICE_PER_PROGRAM ? CARDS_SHARED : 0;
	int ret = row->ledger.map ? 0 : ledger_file_create(&row->ledger, err);

	if (ret)
		return ret;
	ret = ledger_file_free_number(&row->ledger, n_spare);
	return ret < 0 ? pil_err_say(err, -ret, "start executor: card %s has as many as it can",
				     row->id)
		       : ret;
}

bool cards_reaped(struct cards *cards, pid_t pid)
{
	for (int i = 0; i < cards->n; i++)
		if (ledger_file_bury(&cards->rows[i].ledger, pid))
			return true;
	return false;
}

bool cards_judge(struct cards_row *row, unsigned n_faults)
{
	if (n_faults && n_faults <= CARDS_MAX_FAULTS && log_allowed(&row->complaints))
		log_info("card %s: an executor has mended its ledger %u times", row->id, n_faults);
	if (n_faults <= CARDS_MAX_FAULTS)
		return false;
	log_warn("card %s: an executor writes over the ledger of the others: all are ended",
		 row->id);
	for (int i = 0; i < LEDGER_EXECUTORS; i++)
		if (row->ledger.pids[i])
			jail_kill(row->ledger.pids[i]);
	ledger_file_finish(&row->ledger);
	return true;
}

void cards_check(struct cards *cards)
{
	for (int i = 0; i < cards->n; i++)
		ledger_file_check(&cards->rows[i].ledger);
}
