/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <limits.h>
#include <stdio.h>

#include "archive/extract.h"
#include "archive/oci.h"

#define HEX(d)                d d d d d d d d d d d d d d d d
#define A                     HEX("aaaa")
#define B                     HEX("bbbb")
#define DESCRIPTOR(hex, more) "{\"digest\": \"sha256:" hex "\", \"size\": 7" more "}"
#define TAG(name)             ", \"annotations\": {\"org.opencontainers.image.ref.name\": \"" name "\"}"
#define ON(arch)              ", \"platform\": {\"os\": \"linux\", \"architecture\": \"" arch "\"}"
#define LAYER(hex, type)      DESCRIPTOR(hex, ", \"mediaType\": \"" type "\"")
#define TAR_GZ                "application/vnd.oci.image.layer.v1.tar+gzip"

static void test_names_stay_in_the_tree(void **state)
{
	static const struct {
		const char *in, *out; /* out NULL: refused */
	} names[] = {
		{"a/b", "a/b"}, {"./a//b/.", "a/b"},    {"/a", "a"},      {".", ""},
		{"", ""},       {"..", NULL},           {"a/../b", NULL}, {"a/..", NULL},
		{"...", "..."}, {"..a/b..", "..a/b.."}, {"//../x", NULL},
	};
	char out[PATH_MAX], longer[PATH_MAX + 2];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		bool taken = extract_clean_path(names[i].in, out);

		assert_int_equal(taken, names[i].out != NULL);
		if (taken)
			assert_string_equal(out, names[i].out);
	}
	memset(longer, '/', sizeof(longer));
	longer[sizeof(longer) - 1] = '\0';
	assert_false(extract_clean_path(longer, out));
	memset(longer, 'x', 300);
	longer[300] = '\0';
	assert_false(extract_clean_path(longer, out));
}

static int index_of(const char *list, const char *tag, struct oci_blob *blob, bool *nested,
		    struct pil_err *err)
{
	char text[4096];

	snprintf(text, sizeof(text), "{\"manifests\": [%s]}", list);
	return oci_parse_index(text, strlen(text), tag, "amd64", blob, nested, err);
}

static void test_an_index_gives_what_was_asked_for(void **state)
{
	struct oci_blob blob;
	struct pil_err err = {0};
	bool nested;

	(void)state;
	assert_int_equal(index_of(DESCRIPTOR(A, TAG("x")), NULL, &blob, &nested, &err), 0);
	assert_string_equal(blob.path, "blobs/sha256/" A);
	assert_int_equal(blob.bytes, 7);
	assert_false(nested);
	assert_int_equal(index_of(DESCRIPTOR(A, TAG("x")) ", " DESCRIPTOR(B, TAG("y")), "y", &blob,
				  &nested, &err),
			 0);
	assert_string_equal(blob.hex, B);
	assert_int_equal(index_of(DESCRIPTOR(A, TAG("x")) ", " DESCRIPTOR(B, TAG("latest")), NULL,
				  &blob, &nested, &err),
			 0);
	assert_string_equal(blob.hex, B);
	assert_int_equal(index_of(DESCRIPTOR(A, ON("arm64")) ", " DESCRIPTOR(B, ON("amd64")), NULL,
				  &blob, &nested, &err),
			 0);
	assert_string_equal(blob.hex, B);
	assert_int_equal(index_of(LAYER(A, "application/vnd.oci.image.index.v1+json"), NULL, &blob,
				  &nested, &err),
			 0);
	assert_true(nested);
}

static void test_an_index_without_it_is_an_error_with_a_hint(void **state)
{
	struct oci_blob blob;
	struct pil_err err = {0};
	bool nested;

	(void)state;
	assert_int_equal(index_of(DESCRIPTOR(A, TAG("x")) ", " DESCRIPTOR(B, TAG("y")), NULL, &blob,
				  &nested, &err),
			 -ENOENT);
	assert_non_null(strstr(err.hint, "oci:FOLDER:TAG"));
	assert_int_equal(index_of(DESCRIPTOR(A, TAG("x")), "y", &blob, &nested, &err), -ENOENT);
	assert_int_equal(index_of("{\"digest\": \"sha256:../../etc\", \"size\": 1}", NULL, &blob,
				  &nested, &err),
			 -EBADMSG);
	assert_int_equal(index_of("{\"digest\": \"sha512:" A "\", \"size\": 1}", NULL, &blob,
				  &nested, &err),
			 -EBADMSG);
	assert_int_equal(index_of("{\"digest\": \"sha256:" A "\"}", NULL, &blob, &nested, &err),
			 -EBADMSG);
}

static int manifest(const char *layers, struct oci_image *image)
{
	char text[4096];

	snprintf(text, sizeof(text), "{\"config\": %s, \"layers\": %s}", DESCRIPTOR(B, ""), layers);
	return oci_parse_manifest(text, strlen(text), image, NULL);
}

static void test_layers_are_of_known_kinds(void **state)
{
	struct oci_image *image = calloc(1, sizeof(*image));

	(void)state;
	assert_non_null(image);
	assert_int_equal(manifest("[" LAYER(A, TAR_GZ) "]", image), 0);
	assert_int_equal(image->n_layers, 1);
	assert_string_equal(image->config.hex, B);
	assert_int_equal(manifest("[" LAYER(A, TAR_GZ "+encrypted") "]", image), -EBADMSG);
	assert_int_equal(manifest("[" LAYER(A, "text/plain") "]", image), -EBADMSG);
	assert_int_equal(manifest("[" DESCRIPTOR(A, "") "]", image), -EBADMSG);
	assert_int_equal(manifest("{}", image), -EBADMSG);
	free(image);
}

static int docker(const char *text, const char *tag, struct oci_image *image)
{
	return oci_parse_docker(text, strlen(text), tag, image, NULL);
}

static void test_docker_names_files_of_its_own(void **state)
{
	const char *right = "[{\"Config\": \"c.json\", \"RepoTags\": [\"foo:t\"], "
			    "\"Layers\": [\"x/layer.tar\", \"./y.tar\"]}]";
	struct oci_image *image = calloc(1, sizeof(*image));

	(void)state;
	assert_non_null(image);
	assert_int_equal(docker(right, NULL, image), 0);
	assert_int_equal(image->n_layers, 2);
	assert_string_equal(image->layers[1].path, "y.tar");
	assert_int_equal(docker(right, "t", image), 0);
	assert_int_equal(docker(right, "foo:t", image), 0);
	assert_int_equal(docker(right, "u", image), -ENOENT);
	assert_int_equal(docker("[{\"Config\": \"../c\", \"Layers\": []}]", NULL, image), -EBADMSG);
	assert_int_equal(docker("[{\"Config\": \"c\", \"Layers\": [\"../../x\"]}]", NULL, image),
			 -EBADMSG);
	assert_int_equal(docker("{}", NULL, image), -ENOENT);
	free(image);
}

static int config(const char *text, struct oci_config *out)
{
	int ret = oci_parse_config(text, strlen(text), out, NULL);

	if (ret)
		oci_config_finish(out);
	return ret;
}

static void test_a_configuration_has_user_folder_and_environment(void **state)
{
	struct oci_config c;

	(void)state;
	assert_int_equal(config("{\"config\": {\"User\": \"app:www\", \"WorkingDir\": \"/srv\", "
				"\"Env\": [\"A=b\"], \"Cmd\": [\"x\"]}}",
				&c),
			 0);
	assert_string_equal(c.user, "app:www");
	assert_string_equal(c.workdir, "/srv");
	assert_string_equal(c.env[0], "A=b");
	oci_config_finish(&c);
	assert_int_equal(config("{}", &c), 0);
	assert_int_equal(config("{\"config\": {\"User\": \"a\\u001b[2J\"}}", &c), -EBADMSG);
	assert_int_equal(config("{\"config\": {\"WorkingDir\": \"a\"}}", &c), -EBADMSG);
	assert_int_equal(config("{\"config\": {\"Env\": [\"A=b\", \"=c\"]}}", &c), -EBADMSG);
	assert_int_equal(config("{\"config\": {\"Env\": [1]}}", &c), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names_stay_in_the_tree),
		cmocka_unit_test(test_an_index_gives_what_was_asked_for),
		cmocka_unit_test(test_an_index_without_it_is_an_error_with_a_hint),
		cmocka_unit_test(test_layers_are_of_known_kinds),
		cmocka_unit_test(test_docker_names_files_of_its_own),
		cmocka_unit_test(test_a_configuration_has_user_folder_and_environment),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
