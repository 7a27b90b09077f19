// The self-test of a compiled program: a made-up prompt and a few single steps, held against what the reference said of the same weights when the
// program was printed (where selftest.txt has it), and against themselves: token by token, and once more bit for bit. The result is JSON on stdout.
#pragma once
#include "hkgai.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/** Values by name as they are computed: the last row of each is compared. */
struct selftest_value { char name[96]; int count; float *expected; double difference, largest; int seen; };
enum { selftest_values = 512, selftest_steps = 8 };
static struct {
  struct selftest_value values[selftest_values];
  int value_count, checks, failed;
  double tolerance;
} selftest;

static void selftest_compare(const float *got, const float *want, long n, double *difference, double *largest) {
  *difference = *largest = 0;
  for (long i = 0; i < n; i++) {
    const double d = fabs((double)got[i] - (double)want[i]), size = fabs((double)want[i]);
    if (!(d <= *difference)) *difference = d == d ? d : INFINITY;
    if (size > *largest) *largest = size;
  }
}
/** One line of the result; `allowed` grows with values larger than 1. */
static void selftest_say(const char *name, double difference, double largest, double tolerance) {
  const double allowed = tolerance * (largest > 1 ? largest : 1);
  const int passed = difference <= allowed;
  printf("%s\n    {\"name\": \"%s\", \"difference\": %.9g, \"allowed\": %.9g, \"passed\": %s}", selftest.checks ? "," : "", name, isfinite(difference) ? difference : 1e300, allowed, passed ? "true" : "false");
  selftest.checks++;
  selftest.failed += !passed;
}
static void selftest_tap(void *context, const char *name, char element, const void *data, long rows, long columns) {
  (void)context;
  for (int i = 0; i < selftest.value_count; i++) {
    struct selftest_value *v = &selftest.values[i];
    if (element != 'f' || v->count != columns || strcmp(v->name, name) != 0) continue;
    selftest_compare((const float *)data + (rows - 1) * columns, v->expected, columns, &v->difference, &v->largest);
    v->seen = 1;
  }
}
static char *selftest_read(const char *path) {
  FILE *f = fopen(path, "rb");
  if (!f) return NULL;
  fseek(f, 0, SEEK_END);
  const long size = ftell(f);
  rewind(f);
  char *text = size < 0 ? NULL : (char *)malloc((size_t)size + 1);
  if (text && fread(text, 1, (size_t)size, f) != (size_t)size) { free(text); text = NULL; }
  if (text) text[size] = 0;
  fclose(f);
  return text;
}
/** `count` numbers behind a word; NULL where there are fewer. */
static float *selftest_numbers(char **cursor, int count) {
  float *all = (float *)malloc(sizeof(float) * (size_t)(count + 1));
  for (int i = 0; all && i < count; i++) {
    char *end;
    all[i] = strtof(*cursor, &end);
    if (end == *cursor) { free(all); return NULL; }
    *cursor = end;
  }
  return all;
}
static int selftest_bad(const char *path) { fprintf(stderr, "%s cannot be read as a self-test\n", path); return 2; }

/** 0 where all held, 6 where something did not, else what kept it from being tried. */
static int run_selftest(hkgai *model, const hkgai_info *info, const char *path) {
  char *text = selftest_read(path), *cursor = text, word[96];
  int used = 0, prompt = 0, steps = 0;
  float *ids_read = NULL, *expected[selftest_steps + 1] = {0};
  if (!text || sscanf(cursor, "hkgai self-test 1 tolerance %lf%n", &selftest.tolerance, &used) != 1) return selftest_bad(path);
  cursor += used;
  if (sscanf(cursor, " prompt %d steps %d%n", &prompt, &steps, &used) != 2 || prompt < 1 || steps < 0 || steps > selftest_steps || prompt > info->chunk || prompt + steps > info->context) return selftest_bad(path);
  cursor += used;
  if (!(ids_read = selftest_numbers(&cursor, prompt + steps))) return selftest_bad(path);
  while (sscanf(cursor, "%95s%n", word, &used) == 1 && strcmp(word, "end") != 0) {
    cursor += used;
    char name[96];
    int count = 0;
    if (sscanf(cursor, "%95s %d%n", name, &count, &used) != 2 || count < 1) return selftest_bad(path);
    cursor += used;
    float *numbers = selftest_numbers(&cursor, count);
    if (!numbers) return selftest_bad(path);
    const int at = atoi(name);
    if (!strcmp(word, "logits") && at >= 0 && at <= steps && count == info->vocab) expected[at] = numbers;
    else if (!strcmp(word, "values") && selftest.value_count < selftest_values) {
      struct selftest_value *v = &selftest.values[selftest.value_count++];
      snprintf(v->name, sizeof v->name, "%s", name);
      v->count = count;
      v->expected = numbers;
    } else return selftest_bad(path);
  }
  const size_t vocab = (size_t)info->vocab;
  int32_t *rows = (int32_t *)calloc(4 * (size_t)prompt + 4, sizeof *rows);
  float *logits = (float *)malloc(sizeof(float) * vocab), *first = (float *)malloc(sizeof(float) * vocab);
  if (!rows || !logits || !first) { fprintf(stderr, "no memory\n"); return 9; }
  int32_t *ids = rows, *positions = rows + prompt, *sequences = rows + 2 * prompt;
  for (int i = 0; i < prompt; i++) { ids[i] = (int32_t)ids_read[i]; positions[i] = i; }
  const int32_t last = prompt - 1, zero = 0;
  const char *wrong = NULL;
  double difference, largest;
  char name[64];
  printf("{\n  \"model\": \"%s\", \"tolerance\": %g, \"expected\": %s, \"checks\": [", info->name, selftest.tolerance, expected[0] ? "true" : "false");
#define STEP(n, id, position, sequence, wanted, to)                                                                                             \
  if (!wrong) {                                                                                                                                 \
    const hkgai_batch batch = {n, id, position, sequence, NULL, 1, wanted};                                                                     \
    wrong = hkgai_step(model, &batch, to, NULL);                                                                                                \
  }
  hkgai_set_tap(model, selftest.value_count ? selftest_tap : NULL, NULL);
  STEP(prompt, ids, positions, sequences, &last, first)
  hkgai_set_tap(model, NULL, NULL);
  for (int i = 0; i < selftest.value_count && !wrong; i++)
    if (selftest.values[i].seen) selftest_say(selftest.values[i].name, selftest.values[i].difference, selftest.values[i].largest, selftest.tolerance * 2.5);
  if (!wrong) {
    int finite = 1;
    for (size_t i = 0; i < vocab; i++) finite &= isfinite(first[i]) != 0;
    selftest_say("logits are finite", finite ? 0 : INFINITY, 0, 0);
  }
  if (expected[0] && !wrong) { selftest_compare(first, expected[0], info->vocab, &difference, &largest); selftest_say("logits of the prompt", difference, largest, selftest.tolerance); }
  for (int i = 0; i < steps && !wrong; i++) {
    const int32_t id = (int32_t)ids_read[prompt + i], position = prompt + i;
    STEP(1, &id, &position, &zero, &zero, logits)
    if (!expected[i + 1] || wrong) continue;
    selftest_compare(logits, expected[i + 1], info->vocab, &difference, &largest);
    snprintf(name, sizeof name, "logits of step %d", i + 1);
    selftest_say(name, difference, largest, selftest.tolerance);
  }
  // the same tokens in single steps, where another sequence can be held, else over the first; then the prompt again
  const int32_t other = info->sequences > 1 ? 1 : 0;
  for (int i = 0; i < prompt && !wrong; i++) { STEP(1, &ids[i], &positions[i], &other, &zero, logits) }
  if (!wrong) { selftest_compare(logits, first, info->vocab, &difference, &largest); selftest_say("token by token as in one step", difference, largest, selftest.tolerance); }
  STEP(prompt, ids, positions, sequences, &last, logits)
  if (!wrong) { selftest_compare(logits, first, info->vocab, &difference, &largest); selftest_say("the prompt once more, bit for bit", difference, largest, 0); }
#undef STEP
  printf("\n  ],\n  \"problem\": %s%s%s,\n  \"passed\": %s\n}\n", wrong ? "\"" : "", wrong ? wrong : "null", wrong ? "\"" : "", !wrong && !selftest.failed ? "true" : "false");
  return !wrong && !selftest.failed ? 0 : 6;
}
