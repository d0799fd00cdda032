/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: a *hardware-reduced* machine (ACPI 6.3, section 4.1): no timer, no fixed
 * buttons, no SCI; power-off and reset are one register each (power.h).  The tables follow one
 * another from LAYOUT_ACPI on.  The DSDT is the same for every machine, because the PCI devices
 * tell of themselves and interrupts are message-signalled: there is no _PRT.  It is kept as bytes;
 * in ASL it reads:
 *
 *	Name (\_S5, Package () { 5, 0, 0, 0 })
 *	Scope (\_SB) {
 *		Device (PCI0) {
 *			Name (_HID, EisaId ("PNP0A08"))
 *			Name (_CID, EisaId ("PNP0A03"))
 *			Name (_SEG, 0)
 *			Name (_BBN, 0)
 *			Name (_UID, 0)
 *			Name (_CRS, ResourceTemplate () {
 *				WordBusNumber (..., 0, 0, 0, 0, 1)
 *				DWordMemory (..., NonCacheable, ReadWrite, 0, LAYOUT_BARS, ...)
 *			})
 *		}
 *		Device (MB0) {
 *			Name (_HID, EisaId ("PNP0C02"))
 *			Name (_CRS, ResourceTemplate () {
 *				Memory32Fixed (ReadWrite, LAYOUT_ECAM, LAYOUT_ECAM_BYTES)
 *			})
 *		}
 *	} */
#include "vmm/arch/x86_64/acpi.h"

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "base/compiler.h"
#include "vmm/arch/x86_64/layout.h"
#include "vmm/arch/x86_64/power.h"

#define LE16(v) (v) & 0xff, (v) >> 8 & 0xff
#define LE32(v) LE16((v)&0xffff), LE16((uint32_t)(v) >> 16)

/* The words of the DSDT as bytes; what has a length is given its encoded form. */
#define UNDER_ROOT(...)       '\\', __VA_ARGS__
#define SCOPE(low, high, ...) 0x10, low, high, __VA_ARGS__
#define DEVICE(...)           0x5b, 0x82, __VA_ARGS__
#define NAME(...)             0x08, __VA_ARGS__
#define PNP(id)               0x0c, 0x41, 0xd0, (id) >> 8, (id)&0xff
#define BYTE(v)               0x0a, v
#define BUFFER(length, n)     0x11, length, BYTE(n)
#define WORD_BUS_NUMBER(n)    0x88, 13, 0, 2, 0x0c, 0, LE16(0), LE16(0), LE16(0), LE16(0), LE16(n)
#define DWORD_MEMORY(at, n)                                                                        \
	0x87, 23, 0, 0, 0x0c, 1, LE32(0), LE32(at), LE32((at) + (n)-1), LE32(0), LE32(n)
#define MEMORY32_FIXED(at, n) 0x86, 9, 0, 1, LE32(at), LE32(n)
#define END_TAG               0x79, 0

static const uint8_t dsdt_aml[] = {
	NAME(UNDER_ROOT('_', 'S', '5', '_')),
	0x12, /* Package */
	7,    /* bytes */
	4,    /* elements */
	BYTE(POWER_SLEEP_S5),
	0,
	0,
	0,
	SCOPE(0x42, 0x09, UNDER_ROOT('_', 'S', 'B', '_')), /* 146 bytes */
	DEVICE(0x41, 0x06, 'P', 'C', 'I', '0'),            /* 97 bytes */
	NAME('_', 'H', 'I', 'D'),
	PNP(0x0a08),
	NAME('_', 'C', 'I', 'D'),
	PNP(0x0a03),
	NAME('_', 'S', 'E', 'G'),
	0,
	NAME('_', 'B', 'B', 'N'),
	0,
	NAME('_', 'U', 'I', 'D'),
	0,
	NAME('_', 'C', 'R', 'S'),
	BUFFER(0x2f, 44),
	WORD_BUS_NUMBER(1),
	DWORD_MEMORY(LAYOUT_BARS, LAYOUT_BARS_BYTES),
	END_TAG,
	DEVICE(0x26, 'M', 'B', '0', '_'), /* 38 bytes */
	NAME('_', 'H', 'I', 'D'),
	PNP(0x0c02),
	NAME('_', 'C', 'R', 'S'),
	BUFFER(0x11, 14),
	MEMORY32_FIXED(LAYOUT_ECAM, LAYOUT_ECAM_BYTES),
	END_TAG,
};
static_assert(sizeof(dsdt_aml) == 14 + 1 + 146, "package lengths of the DSDT");

enum { HEADER_BYTES = 36, FADT_BYTES = 276 };

struct writer {
	uint8_t *base, *table, *p, *end;
};

static void put(struct writer *w, uint64_t value, size_t bytes)
{
	assert(bytes <= (size_t)(w->end - w->p));
	memcpy(w->p, &value, bytes);
	w->p += bytes;
}

static void put_all(struct writer *w, const void *from, size_t bytes)
{
	assert(bytes <= (size_t)(w->end - w->p));
	memcpy(w->p, from, bytes);
	w->p += bytes;
}

static uint8_t checksum(const uint8_t *p, size_t n)
{
	uint8_t sum = 0;

	while (n--)
		sum -= *p++;
	return sum;
}

static void begin(struct writer *w, const char *signature, uint8_t revision)
{
	while ((w->p - w->base) % 16)
		w->p++;
	w->table = w->p;
	put_all(w, signature, 4);
	put(w, 0, 4); /* length */
	put(w, revision, 1);
	put(w, 0, 1); /* checksum */
	put_all(w, "PILLIO", 6);
	put_all(w, "PILLION ", 8);
	put(w, 1, 4);
	put_all(w, "PILL", 4);
	put(w, 1, 4);
}

/* Returns the guest's address of the finished table. */
static uint64_t finish(struct writer *w)
{
	uint32_t len = (uint32_t)(w->p - w->table);

	memcpy(w->table + 4, &len, sizeof(len));
	w->table[9] = checksum(w->table, len);
	return LAYOUT_ACPI + (uint64_t)(w->table - w->base);
}

static void put_register(uint8_t *fadt, size_t off, uint16_t port)
{
	const uint8_t address[12] = {1 /* I/O space */, 8 /* bits */, 0, 1 /* byte access */,
				     LE16(port)};

	memcpy(fadt + off, address, sizeof(address));
}

static uint64_t write_fadt(struct writer *w, uint64_t dsdt)
{
	const uint32_t flags = 1 << 0 /* wbinvd */ | 1 << 4 | 1 << 5 /* no fixed buttons */ |
			       1 << 10 /* reset register */ | 1 << 20 /* hardware-reduced */;
	const uint16_t boot = 1 << 2 /* no VGA */ | 1 << 4 /* no ASPM */ | 1 << 5 /* no RTC */;

	begin(w, "FACP", 6);
	w->p = w->table + FADT_BYTES;
	memcpy(w->table + 40, &dsdt, 4);
	memcpy(w->table + 109, &boot, 2);
	memcpy(w->table + 112, &flags, 4);
	put_register(w->table, 116, LAYOUT_POWER_PORT + POWER_RESET);
	w->table[128] = POWER_RESET_VALUE;
	w->table[131] = 3; /* minor revision: ACPI 6.3 */
	memcpy(w->table + 140, &dsdt, 8);
	put_register(w->table, 244, LAYOUT_POWER_PORT + POWER_SLEEP_CONTROL);
	put_register(w->table, 256, LAYOUT_POWER_PORT + POWER_SLEEP_STATUS);
	memcpy(w->table + 268, "PILLION", 8);
	return finish(w);
}

static uint64_t write_madt(struct writer *w, unsigned n_vcpus)
{
	begin(w, "APIC", 5);
	put(w, LAYOUT_LAPIC, 4);
	put(w, 0, 4); /* no PC/AT interrupt controller worth using */
	for (unsigned i = 0; i < n_vcpus; i++)
		put_all(w, (const uint8_t[]){0, 8, (uint8_t)i, (uint8_t)i, LE32(1) /* enabled */},
			8);
	put_all(w, (const uint8_t[]){1, 12, 0, 0, LE32(LAYOUT_IOAPIC), LE32(0)}, 12);
	return finish(w);
}

static uint64_t write_mcfg(struct writer *w)
{
	begin(w, "MCFG", 1);
	put(w, 0, 8);
	put(w, LAYOUT_ECAM, 8);
	put(w, 0, 8); /* segment 0, bus 0 to bus 0 */
	return finish(w);
}

static uint64_t write_rsdp(struct writer *w, uint64_t xsdt)
{
	begin(w, "RSD ", 0); /* aligns */
	w->p = w->table;
	put_all(w, "RSD PTR ", 8);
	put(w, 0, 1);
	put_all(w, "PILLIO", 6);
	put(w, 2, 1); /* revision */
	put(w, 0, 4); /* no RSDT */
	put(w, 36, 4);
	put(w, xsdt, 8);
	put(w, 0, 4);
	w->table[8] = checksum(w->table, 20);
	w->table[32] = checksum(w->table, 36);
	return LAYOUT_ACPI + (uint64_t)(w->table - w->base);
}

uint64_t acpi_write(const struct guest_mem *mem, unsigned n_vcpus)
{
	uint8_t *base = guest_mem_at(mem, LAYOUT_ACPI, LAYOUT_ACPI_END - LAYOUT_ACPI);
	struct writer w = {.base = base, .p = base};
	uint64_t tables[3], dsdt;

	assert(base); /* the smallest machine has 2 MiB */
	w.end = base + (LAYOUT_ACPI_END - LAYOUT_ACPI);
	begin(&w, "DSDT", 2);
	put_all(&w, dsdt_aml, sizeof(dsdt_aml));
	dsdt = finish(&w);
	tables[0] = write_fadt(&w, dsdt);
	tables[1] = write_madt(&w, n_vcpus);
	tables[2] = write_mcfg(&w);
	begin(&w, "XSDT", 1);
	put_all(&w, tables, sizeof(tables));
	return write_rsdp(&w, finish(&w));
}
