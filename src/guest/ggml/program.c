/* SPDX-License-Identifier: Apache-2.0
 *
 * program.c -- finding ggml without importing a symbol of it.
 *
 * An undefined symbol of ggml would keep this library from loading into programs that link ggml
 * statically, and would bind to whichever copy comes first in those that have several.  The copy
 * that counts is the one that called ggml_backend_init(), so the search starts at its return
 * address.  A statically linked ggml is in no dynamic symbol table: its addresses are read from the
 * .symtab of the file on disk, if the file still has one. */
#include "guest/ggml/program.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

enum { SYM_VERSION, SYM_OP, SYM_UNARY, SYM_GLU, SYM_BLCK, SYM_TYPE, NUM_SYMS };

static const char *const sym_str[NUM_SYMS] = {
	[SYM_VERSION] = "ggml_version",     [SYM_OP] = "ggml_op_name",
	[SYM_UNARY] = "ggml_unary_op_name", [SYM_GLU] = "ggml_glu_op_name",
	[SYM_BLCK] = "ggml_blck_size",      [SYM_TYPE] = "ggml_type_size",
};

enum abi_generation program_parse_version(const char *text, uint32_t version[3])
{
	unsigned long v[3] = {0};
	int n = 0;

	for (; n < 3 && *text >= '0' && *text <= '9'; n++) {
		char *end;

		v[n] = strtoul(text, &end, 10);
		text = *end == '.' ? end + 1 : "";
	}
	for (int i = 0; i < 3; i++)
		version[i] = (uint32_t)v[i];
	if (n < 2)
		return ABI_UNKNOWN;
	if (v[0] == 0 && v[1] == 25)
		return ABI_V2;
	if (v[0] == 0 && (v[1] == 26 || v[1] == 27))
		return ABI_V3;
	return ABI_UNKNOWN;
}

static bool in_file(uint64_t off, uint64_t n, size_t len)
{
	return off <= len && n <= len - off;
}

static bool symtab_section(const uint8_t *elf, size_t len, uint64_t index, Elf64_Shdr *out)
{
	Elf64_Ehdr eh;

	memcpy(&eh, elf, sizeof(eh));
	if (index >= eh.e_shnum || eh.e_shentsize != sizeof(*out) ||
	    !in_file(eh.e_shoff, (uint64_t)eh.e_shnum * sizeof(*out), len))
		return false;
	memcpy(out, elf + eh.e_shoff + index * sizeof(*out), sizeof(*out));
	return out->sh_type == SHT_NOBITS || in_file(out->sh_offset, out->sh_size, len);
}

static void symtab_match(const char *name, size_t max, const Elf64_Sym *sym,
			 const char *const *names, int n, uint64_t *values)
{
	for (int i = 0; i < n; i++) {
		size_t want = strlen(names[i]) + 1;

		if (want <= max && !memcmp(name, names[i], want))
			values[i] = sym->st_value;
	}
}

bool program_parse_symtab(const uint8_t *elf, size_t len, const char *const *names, int n,
			  uint64_t *values)
{
	Elf64_Shdr sec, str;
	Elf64_Ehdr eh;
	bool found = false;

	memset(values, 0, (size_t)n * sizeof(*values));
	if (len < sizeof(eh))
		return false;
	memcpy(&eh, elf, sizeof(eh));
	if (memcmp(eh.e_ident, ELFMAG, SELFMAG) || eh.e_ident[EI_CLASS] != ELFCLASS64)
		return false;
	for (unsigned i = 0; i < eh.e_shnum; i++) {
		if (!symtab_section(elf, len, i, &sec) || sec.sh_type != SHT_SYMTAB ||
		    !symtab_section(elf, len, sec.sh_link, &str) || str.sh_type != SHT_STRTAB)
			continue;
		found = true;
		for (uint64_t at = 0; sec.sh_size - at >= sizeof(Elf64_Sym);
		     at += sizeof(Elf64_Sym)) {
			Elf64_Sym sym;

			memcpy(&sym, elf + sec.sh_offset + at, sizeof(sym));
			if (ELF64_ST_TYPE(sym.st_info) == STT_FUNC && sym.st_value &&
			    sym.st_name < str.sh_size)
				symtab_match((const char *)elf + str.sh_offset + sym.st_name,
					     str.sh_size - sym.st_name, &sym, names, n, values);
		}
	}
	return found;
}

static bool find_in_file(const char *path, uintptr_t bias, void *syms[NUM_SYMS])
{
	_auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint64_t values[NUM_SYMS];
	struct stat st;
	void *map;
	bool ok;

	if (fd < 0 || fstat(fd, &st) || st.st_size <= 0)
		return false;
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (map == MAP_FAILED)
		return false;
	ok = program_parse_symtab(map, (size_t)st.st_size, sym_str, NUM_SYMS, values);
	munmap(map, (size_t)st.st_size);
	if (!ok)
		return false;
	for (int i = 0; i < NUM_SYMS; i++)
		syms[i] = values[i] ? (void *)(bias + values[i]) : NULL;
	return syms[SYM_VERSION] != NULL;
}

static bool find_in_handle(void *handle, void *syms[NUM_SYMS])
{
	for (int i = 0; i < NUM_SYMS; i++)
		syms[i] = dlsym(handle, sym_str[i]);
	return syms[SYM_VERSION] != NULL;
}

/* A loaded object; the executable itself has no name. */
struct object {
	const void *holds; /* an address in it; NULL: the executable */
	const char *name;
	uintptr_t bias; /* from the addresses in its file to those in memory */
};

static int match_object(struct dl_phdr_info *info, size_t size, void *data)
{
	struct object *o = data;
	bool match = !o->holds; /* the executable comes first */

	(void)size;
	for (int i = 0; i < info->dlpi_phnum && !match; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];

		match = p->p_type == PT_LOAD &&
			(uintptr_t)o->holds - info->dlpi_addr - p->p_vaddr < p->p_memsz;
	}
	if (match) {
		o->name = info->dlpi_name ? info->dlpi_name : "";
		o->bias = info->dlpi_addr;
	}
	return match;
}

static bool find_symbols(const void *caller, void *syms[NUM_SYMS])
{
	struct object object = {.holds = caller, .name = ""}, executable = {0};
	void *handle;

	dl_iterate_phdr(match_object, &object);
	handle = object.name[0] ? dlopen(object.name, RTLD_NOW | RTLD_NOLOAD) : NULL;
	if (handle) {
		bool ok = find_in_handle(handle, syms);

		dlclose(handle);
		if (ok)
			return true;
	}
	if (find_in_handle(RTLD_DEFAULT, syms))
		return true;
	if (object.name[0] && find_in_file(object.name, object.bias, syms))
		return true;
	dl_iterate_phdr(match_object, &executable);
	return find_in_file("/proc/self/exe", executable.bias, syms);
}

bool program_find(struct program *prog, const void *caller)
{
	const char *(*version)(void);
	void *syms[NUM_SYMS];
	uint32_t numbers[3];

	memset(prog, 0, sizeof(*prog));
	if (!find_symbols(caller, syms))
		return false;
	memcpy(&version, &syms[SYM_VERSION], sizeof(version));
	snprintf(prog->version_text, sizeof(prog->version_text), "%s", version());
	for (int i = 0; i < NUM_SYMS; i++)
		if (!syms[i])
			return true; /* generation stays unknown */
	prog->generation = program_parse_version(prog->version_text, numbers);
	memcpy(&prog->op_name, &syms[SYM_OP], sizeof(void *));
	memcpy(&prog->unary_op_name, &syms[SYM_UNARY], sizeof(void *));
	memcpy(&prog->glu_op_name, &syms[SYM_GLU], sizeof(void *));
	memcpy(&prog->blck_size, &syms[SYM_BLCK], sizeof(void *));
	memcpy(&prog->type_size, &syms[SYM_TYPE], sizeof(void *));
	return true;
}
