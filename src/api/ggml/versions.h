/* SPDX-License-Identifier: Apache-2.0
 *
 * versions.h -- which versions of ggml this pillion knows, in programs and in executors.
 *
 * ggml changes its binary interface without a word, so a version is known once somebody has
 * compared its private headers.  A new one goes here, into the plugin's program_parse_version(),
 * into the executor's known_versions[], and into the revision of the recipes that bring it. */
#ifndef PIL_API_GGML_VERSIONS_H
#define PIL_API_GGML_VERSIONS_H

#define GGML_OLDEST_MINOR   25
#define GGML_NEWEST_MINOR   27
#define GGML_KNOWN_VERSIONS "0.25 to 0.27" /* for people */

#endif
