/* A stand-in for libcudart without a GPU: "device memory" is memory that only its own copies may touch by size and kind.
   Every call is written to the file that FAKE_CUDA_LOG names; a copy outside an allocation, or the wrong way, fails. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 64
enum { FREE, DEVICE, HOST };
static struct { char *start; size_t size; int kind; } blocks[MOST];
static int events;

static void note(const char *text, size_t number) {
    const char *path = getenv("FAKE_CUDA_LOG");
    FILE *file = path ? fopen(path, "a") : NULL;
    if (file) { fprintf(file, "%s %zu\n", text, number); fclose(file); }
}

static int take(void **found, size_t size, int kind) {
    const char *most = getenv("FAKE_CUDA_MEMORY");
    if (most && size > strtoull(most, NULL, 10)) return 2;
    for (int i = 0; i < MOST; i++)
        if (blocks[i].kind == FREE) {
            blocks[i].start = malloc(size); blocks[i].size = size; blocks[i].kind = kind;
            memset(blocks[i].start, 0xA5, size);
            *found = blocks[i].start;
            return 0;
        }
    return 2;
}

static int give(void *start, int kind) {
    for (int i = 0; i < MOST; i++)
        if (blocks[i].kind == kind && blocks[i].start == start) { free(start); blocks[i].kind = FREE; return 0; }
    return 1;
}

static int inside(const void *start, size_t size, int kind) {
    for (int i = 0; i < MOST; i++)
        if (blocks[i].kind == kind && (char *)start >= blocks[i].start &&
            (char *)start + size <= blocks[i].start + blocks[i].size) return 1;
    return 0;
}

int cudaGetDeviceCount(int *count) { *count = 1; return getenv("FAKE_CUDA_NONE") ? 35 : 0; }
int cudaRuntimeGetVersion(int *version) { *version = 12060; return 0; }
int cudaDriverGetVersion(int *version) { *version = 12080; return 0; }
int cudaDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 8 : attribute == 76 ? 7 : attribute == 18 ? 1 : -1;
    return device;
}
int cudaGetDeviceProperties(void *properties, int device) {
    memset(properties, 0xEE, 1008); /* sizeof(cudaDeviceProp) of CUDA 12 */
    strcpy(properties, "Orin");
    return device;
}
int cudaMemGetInfo(size_t *free, size_t *total) { *free = 3ULL << 30; *total = 7ULL << 30; return 0; }
int cudaMalloc(void **found, size_t size) { note("malloc", size); return take(found, size, DEVICE); }
int cudaMallocHost(void **found, size_t size) { return take(found, size, HOST); }
int cudaFree(void *start) { note("free", 0); return give(start, DEVICE); }
int cudaFreeHost(void *start) { return give(start, HOST); }
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
    int up = kind == 1 && inside(to, size, DEVICE) && inside(from, size, HOST);
    int down = kind == 2 && inside(to, size, HOST) && inside(from, size, DEVICE);
    note(kind == 1 ? "upload" : "download", size);
    if (!(up || down) || stream != (void *)77) return 1;
    memcpy(to, from, size);
    return 0;
}
int cudaStreamCreate(void **stream) { *stream = (void *)77; return 0; }
int cudaStreamSynchronize(void *stream) { note("wait", 0); return stream == (void *)77 ? 0 : 1; }
int cudaEventCreate(void **event) { *event = (void *)(size_t)(1000 + events++); return 0; }
int cudaEventRecord(void *event, void *stream) { (void)event; return stream == (void *)77 ? 0 : 1; }
int cudaEventSynchronize(void *event) { (void)event; return 0; }
int cudaEventElapsedTime(float *ms, void *start, void *end) { *ms = 0.5f * (float)((char *)end - (char *)start); return 0; }
const char *cudaGetErrorString(int code) {
    return code == 35 ? "CUDA driver version is insufficient" : code == 2 ? "out of memory" : "invalid value";
}
