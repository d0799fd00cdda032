/* SPDX-License-Identifier: Apache-2.0
 *
 * Recipes come first, then the lists in their order; a name that was shown is not shown again. */
#include "cli/offers.h"

#include <string.h>
#include <strings.h>

#include <jansson.h>

#include "tree/catalog.h"
#include "tree/recipe.h"

enum { NAME_WIDTH = 32 };

bool offers_is_recipe(const char *name)
{
	const struct recipe *recipe = recipe_find(name);

	return recipe && !strcmp(recipe->name, name);
}

static bool is_overridden(const struct catalog *catalog, const struct manifest_entry *e)
{
	for (size_t i = 0; i < catalog->append.n; i++)
		if (!strcasecmp(catalog->append.v[i].name, e->name))
			return true;
	return false;
}

typedef void each_offer(void *arg, const char *name, const char *title, const char *url);

static void for_each(const struct catalog *catalog, each_offer *call, void *arg)
{
	for (const struct recipe *r = recipes_distro; r->name; r++)
		call(arg, r->name, r->title, NULL);
	for (size_t i = 0; i < catalog->append.n; i++)
		call(arg, catalog->append.v[i].name, catalog->append.v[i].friendly,
		     catalog->append.v[i].url);
	for (size_t i = 0; i < catalog->main.n; i++)
		if (!is_overridden(catalog, &catalog->main.v[i]))
			call(arg, catalog->main.v[i].name, catalog->main.v[i].friendly,
			     catalog->main.v[i].url);
}

static void print_one(void *arg, const char *name, const char *title, const char *url)
{
	(void)url;
	fprintf(arg, "%-*s%s\n", NAME_WIDTH, name, title);
}

void offers_print(FILE *out, const struct catalog *catalog)
{
	fprintf(out,
		"The following is a list of valid distributions that can be installed.\n"
		"Install using 'pillion --install <Distro>'.\n\n"
		"%-*sFRIENDLY NAME\n",
		NAME_WIDTH, "NAME");
	for_each(catalog, print_one, out);
}

static void add_one(void *arg, const char *name, const char *title, const char *url)
{
	json_array_append_new(arg, json_pack("{s:s, s:s, s:s?}", "name", name, "friendlyName",
					     title, "url", url));
}

void offers_print_json(FILE *out, const struct catalog *catalog)
{
	json_auto_t *list = json_array();

	for_each(catalog, add_one, list);
	json_dumpf(list, out, JSON_INDENT(2));
	fputc('\n', out);
}
