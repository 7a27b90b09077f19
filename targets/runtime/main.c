// The executable of a compiled model: speaks token ids.
//
//   model --tokens 0,2037,453 -n 40            continues a prompt, ids on stdout one a line
//   model --serve                              commands on stdin, one a line, answers on stdout (below)
//   model --bench PROMPT DECODE                tokens per second with made-up tokens
//   model --selftest selftest.txt              the self-test that was printed with it; JSON on stdout, exit 6 where something does not hold
//
// Commands of --serve; numbers are separated by blanks:
//   step ROWS WANTED MTP ids.. positions.. sequences.. [next ids.., where MTP is 1] wanted rows..
//        -> "logits WANTED VOCAB BYTES\n" and f32 [wanted, vocab] (twice with MTP), little-endian
//   generate SEQUENCE POSITION COUNT TEMPERATURE TOP_P SEED STOPS stops.. N ids..
//        -> each id on a line as it comes, then "done PROMPT_TOKENS PROMPT_US TOKENS DECODE_US"
//   taps FILE      write named values of the next steps to FILE (a program built with HKGAI_TAPS)
//   bandwidth      -> "bandwidth BYTES_PER_SECOND": what all threads read from memory
//   quit
// What is wrong is answered by "error SENTENCE".
#include "hkgai.h"
#include "hkgai_selftest.h"
#include <libgen.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static hkgai_info info;
static hkgai *model;
static float *logits, *mtp_logits;

static double now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

// ---- choosing a token

static uint64_t random_state;
static double random_unit(void) { // xorshift64*
  random_state ^= random_state >> 12;
  random_state ^= random_state << 25;
  random_state ^= random_state >> 27;
  return (double)((random_state * 2685821657736338717ull) >> 11) / 9007199254740992.0;
}
struct candidate { float p; int id; };
static int by_falling(const void *a, const void *b) {
  const struct candidate *x = a, *y = b;
  return x->p < y->p ? 1 : x->p > y->p ? -1 : x->id - y->id;
}
static int best_of(const float *l) {
  int best = 0;
  for (int i = 1; i < info.vocab; i++) if (l[i] > l[best]) best = i;
  return best;
}
static int choose(const float *l, double temperature, double top_p) {
  const int best = best_of(l);
  if (temperature <= 0) return best;
  struct candidate *c = malloc(sizeof *c * (size_t)info.vocab);
  if (!c) return best;
  double sum = 0;
  for (int i = 0; i < info.vocab; i++) { c[i] = (struct candidate){(float)exp((l[i] - l[best]) / temperature), i}; sum += c[i].p; }
  int count = info.vocab;
  if (top_p < 1) {
    qsort(c, (size_t)count, sizeof *c, by_falling);
    double kept = 0;
    for (count = 0; count < info.vocab && kept < top_p * sum; count++) kept += c[count].p;
    sum = kept;
  }
  double at = random_unit() * sum;
  int chosen = c[count - 1].id;
  for (int i = 0; i < count; i++) if ((at -= c[i].p) < 0) { chosen = c[i].id; break; }
  free(c);
  return chosen;
}

// ---- steps

/** Feed n ids of a sequence from a position on, in chunks; logits of the last are in `logits`. */
static const char *feed(int sequence, int position, const int32_t *ids, int n) {
  int32_t positions[info.chunk], sequences[info.chunk];
  for (int done = 0; done < n;) {
    const int rows = n - done < info.chunk ? n - done : info.chunk;
    for (int i = 0; i < rows; i++) { positions[i] = position + done + i; sequences[i] = sequence; }
    const int32_t last = rows - 1;
    const char *wrong = hkgai_step(model, &(hkgai_batch){rows, ids + done, positions, sequences, NULL, done + rows == n, &last}, logits, NULL);
    if (wrong) return wrong;
    done += rows;
  }
  return NULL;
}
struct request { int sequence, position, count; double temperature, top_p; uint64_t seed; const int32_t *stops; int stop_count; const int32_t *ids; int n; };
static const char *generate(const struct request *r) {
  random_state = r->seed * 0x9e3779b97f4a7c15ull + 1;
  if (r->n < 1) return "a prompt has at least one token";
  const double start = now_us();
  const char *wrong = feed(r->sequence, r->position, r->ids, r->n);
  if (wrong) return wrong;
  const double prompt = now_us();
  int made = 0, position = r->position + r->n;
  while (made < r->count) {
    const int32_t id = choose(logits, r->temperature, r->top_p);
    printf("%d\n", id);
    fflush(stdout);
    made++;
    int stop = 0;
    for (int i = 0; i < r->stop_count; i++) stop |= r->stops[i] == id;
    if (stop || made == r->count || position >= info.context) break;
    if ((wrong = feed(r->sequence, position++, &id, 1))) return wrong;
  }
  // the first token comes with the prompt
  printf("done %d %.0f %d %.0f\n", r->n, prompt - start, made - 1, now_us() - prompt);
  fflush(stdout);
  return NULL;
}

// ---- --serve

static char *cursor;
static long number(void) { char *end; const long v = strtol(cursor, &end, 10); if (end == cursor) { cursor = NULL; return 0; } cursor = end; return v; }
static double real(void) { char *end; const double v = strtod(cursor, &end); if (end == cursor) { cursor = NULL; return 0; } cursor = end; return v; }
static int numbers(int32_t *to, long n) {
  for (long i = 0; i < n; i++) { if (!cursor) return 0; to[i] = (int32_t)number(); }
  return cursor != NULL;
}
static const char *serve_step(void) {
  const long rows = number(), wanted = cursor ? number() : 0, mtp = cursor ? number() : 0;
  if (!cursor || rows < 1 || rows > info.chunk || wanted < 0 || wanted > rows) return "step: rows or wanted rows out of range";
  int32_t ids[rows], positions[rows], sequences[rows], next[rows], want[rows];
  if (!numbers(ids, rows) || !numbers(positions, rows) || !numbers(sequences, rows) || (mtp && !numbers(next, rows)) || !numbers(want, wanted)) return "step: numbers are missing";
  const char *wrong = hkgai_step(model, &(hkgai_batch){(int)rows, ids, positions, sequences, mtp ? next : NULL, (int)wanted, want}, logits, mtp ? mtp_logits : NULL);
  if (wrong) return wrong;
  const size_t n = (size_t)wanted * (size_t)info.vocab;
  printf("logits %ld %d %zu\n", wanted, info.vocab, n * sizeof(float) * (mtp ? 2 : 1));
  fwrite(logits, sizeof(float), n, stdout);
  if (mtp) fwrite(mtp_logits, sizeof(float), n, stdout);
  fflush(stdout);
  return NULL;
}
static const char *serve_generate(void) {
  struct request r = {0};
  r.sequence = (int)number();
  if (cursor) r.position = (int)number();
  if (cursor) r.count = (int)number();
  if (cursor) r.temperature = real();
  if (cursor) r.top_p = real();
  if (cursor) r.seed = (uint64_t)number();
  const long stops = cursor ? number() : -1;
  if (!cursor || stops < 0 || stops > 4096) return "generate: numbers are missing";
  int32_t stop[stops + 1];
  if (!numbers(stop, stops)) return "generate: numbers are missing";
  const long n = number();
  if (!cursor || n < 1 || n > info.context) return "generate: the prompt does not fit the context";
  int32_t *ids = malloc(sizeof *ids * (size_t)n);
  if (!ids) return "no memory";
  const char *wrong = "generate: numbers are missing";
  if (numbers(ids, n)) {
    r.stops = stop, r.stop_count = (int)stops, r.ids = ids, r.n = (int)n;
    wrong = generate(&r);
  }
  free(ids);
  return wrong;
}
static FILE *tap_file;
static void write_tap(void *context, const char *name, char element, const void *data, long rows, long columns) {
  (void)context;
  fprintf(tap_file, "%s %c %ld %ld\n", name, element, rows, columns);
  fwrite(data, 4, (size_t)(rows * columns), tap_file);
}
static const char *serve_taps(void) {
  while (*cursor == ' ') cursor++;
  if (tap_file) fclose(tap_file);
  tap_file = *cursor ? fopen(cursor, "wb") : NULL;
  hkgai_set_tap(model, tap_file ? write_tap : NULL, NULL);
  return *cursor && !tap_file ? "taps: the file cannot be written" : NULL;
}
static int serve(void) {
  char *line = NULL;
  size_t size = 0;
  printf("ready %d %d %d %d %d %llu %llu %llu\n", info.vocab, info.context, info.sequences, info.chunk, info.mtp, (unsigned long long)info.weight_bytes, (unsigned long long)info.state_bytes, (unsigned long long)info.arena_bytes);
  fflush(stdout);
  while (getline(&line, &size, stdin) > 0) {
    line[strcspn(line, "\n")] = 0;
    const char *wrong = NULL;
    if (!strncmp(line, "step ", 5)) { cursor = line + 5; wrong = serve_step(); }
    else if (!strncmp(line, "generate ", 9)) { cursor = line + 9; wrong = serve_generate(); }
    else if (!strncmp(line, "taps", 4)) { cursor = line + 4; wrong = serve_taps(); if (!wrong) { printf("ok\n"); fflush(stdout); } }
    else if (!strcmp(line, "bandwidth")) { printf("bandwidth %.0f\n", hkgai_bandwidth(model)); fflush(stdout); }
    else if (!strcmp(line, "quit")) break;
    else wrong = "no such command";
    if (wrong) { printf("error %s\n", wrong); fflush(stdout); }
    if (tap_file) fflush(tap_file);
  }
  if (tap_file) fclose(tap_file);
  free(line);
  return 0;
}

static int bench(int prompt, int decode) {
  if (prompt < 1 || decode < 1 || prompt + decode > info.context) { fprintf(stderr, "prompt and decode must fit the context of %d\n", info.context); return 2; }
  int32_t *ids = malloc(sizeof *ids * (size_t)prompt);
  if (!ids) return 9;
  random_state = 88172645463325252ull;
  for (int i = 0; i < prompt; i++) ids[i] = (int32_t)(random_unit() * info.vocab);
  feed(0, 0, ids, prompt < info.chunk ? prompt : info.chunk); // pages and caches warm
  double start = now_us();
  feed(0, 0, ids, prompt);
  const double p = now_us() - start;
  double best = 1e30;
  for (int turn = 0; turn < 3; turn++) {
    start = now_us();
    for (int i = 0; i < decode; i++) { const int32_t id = (int32_t)(random_unit() * info.vocab); feed(0, prompt + i, &id, 1); }
    const double d = now_us() - start;
    if (d < best) best = d;
  }
  printf("{\"prompt_tokens\": %d, \"prompt_per_s\": %.2f, \"decode_tokens\": %d, \"decode_per_s\": %.2f}\n", prompt, prompt / p * 1e6, decode, decode / best * 1e6);
  free(ids);
  return 0;
}

static int usage(const char *name) {
  fprintf(stderr, "usage: %s [--weights DIR] [--threads N] (--tokens ID,ID,.. [-n COUNT] [--temperature T] [--top-p P] [--seed N] [--stop ID] | --serve | --selftest FILE | --bench PROMPT DECODE)\n", name);
  return 2;
}
int main(int argc, char **argv) {
  info = hkgai_about();
  char beside[4096] = ".";
  const ssize_t length = readlink("/proc/self/exe", beside, sizeof beside - 32);
  char weights[4200] = "../engine";
  if (length > 0) { beside[length] = 0; snprintf(weights, sizeof weights, "%s/../engine", dirname(beside)); }
  const char *dir = weights, *test = NULL;
  int threads = 0, serving = 0, benching = 0, prompt = 0, decode = 0, n = 0;
  int32_t stop[16], *ids = malloc(sizeof *ids * (size_t)(info.context + 1));
  struct request r = {.count = 32, .top_p = 1, .seed = 1, .stops = stop, .ids = ids};
  if (!ids) return 9;
  for (int i = 1; i < argc; i++) {
    const char *a = argv[i];
    const int left = argc - 1 - i;
    if (!strcmp(a, "--serve")) serving = 1;
    else if (!strcmp(a, "--bench") && left >= 2) { benching = 1; prompt = atoi(argv[++i]); decode = atoi(argv[++i]); }
    else if (left < 1) return usage(argv[0]);
    else if (!strcmp(a, "--weights")) dir = argv[++i];
    else if (!strcmp(a, "--selftest")) test = argv[++i];
    else if (!strcmp(a, "--threads")) threads = atoi(argv[++i]);
    else if (!strcmp(a, "-n")) r.count = atoi(argv[++i]);
    else if (!strcmp(a, "--temperature")) r.temperature = atof(argv[++i]);
    else if (!strcmp(a, "--top-p")) r.top_p = atof(argv[++i]);
    else if (!strcmp(a, "--seed")) r.seed = strtoull(argv[++i], NULL, 10);
    else if (!strcmp(a, "--stop") && r.stop_count < 16) stop[r.stop_count++] = atoi(argv[++i]);
    else if (!strcmp(a, "--tokens"))
      for (char *p = argv[++i]; *p && n <= info.context;) { char *end; ids[n++] = (int32_t)strtol(p, &end, 10); if (end == p) return usage(argv[0]); p = *end == ',' ? end + 1 : end; }
    else return usage(argv[0]);
  }
  if (!serving && !benching && !test && n == 0) return usage(argv[0]);
  char error[4400];
  model = hkgai_open(dir, threads, error, sizeof error);
  if (!model) { fprintf(stderr, "%s\n", error); return 3; }
  const size_t bytes = (size_t)info.chunk * (size_t)info.vocab * sizeof(float);
  logits = malloc(bytes);
  mtp_logits = info.mtp ? malloc(bytes) : NULL;
  int code = 0;
  if (!logits || (info.mtp && !mtp_logits)) { fprintf(stderr, "no memory for logits\n"); code = 9; }
  else if (test) code = run_selftest(model, &info, test);
  else if (serving) code = serve();
  else if (benching) code = bench(prompt, decode);
  else {
    r.n = n;
    const char *wrong = generate(&r);
    if (wrong) { fprintf(stderr, "%s\n", wrong); code = 2; }
  }
  hkgai_close(model);
  free(logits);
  free(mtp_logits);
  free(ids);
  return code;
}
