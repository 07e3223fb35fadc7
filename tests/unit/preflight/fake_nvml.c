/* A libnvidia-ml.so.1 with three GPUs, so that the real bindings run without a driver:
 * 0 a healthy H100 that answers everything, 1 one that supports nothing beyond its name, 2 a lost one.
 * Signatures and layouts as in NVIDIA's nvml.h. */
#include <stdint.h>
#include <string.h>

enum { SUCCESS = 0, INVALID = 2, NOT_SUPPORTED = 3, LOST = 15 };
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } Pci;
typedef struct {
    unsigned field, scope;
    int64_t timestamp, latency;
    int type, result;
    union { double d; unsigned ui; unsigned long long ull; int si; } value;
} Field;
typedef struct { unsigned version; uint64_t counts[11]; unsigned exceeded; } Sram;
typedef struct {
    unsigned version;
    uint8_t cluster[16];
    int status;
    uint32_t clique;
    unsigned state;
    uint32_t health;
} Fabric;

static int places[3] = {0, 1, 2};
static int which(int *gpu) { return *gpu; }
static int answers(int *gpu) { return *gpu == 0 ? SUCCESS : *gpu == 1 ? NOT_SUPPORTED : LOST; }
#define GIVE(target, number) do { int a = answers(gpu); if (!a) *(target) = (number); return a; } while (0)

int nvmlInitWithFlags(unsigned flags) { return flags ? INVALID : SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { (void)code; return "some error"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 3; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, int **gpu) { *gpu = &places[index]; return SUCCESS; }
int nvmlDeviceGetName(int *gpu, char *name, unsigned size) {
    strncpy(name, which(gpu) == 1 ? "NVIDIA Thing" : "NVIDIA H100 80GB HBM3", size);
    return SUCCESS;
}
int nvmlDeviceGetUUID(int *gpu, char *uuid, unsigned size) {
    strncpy(uuid, "GPU-0", size);
    uuid[4] += which(gpu);
    return SUCCESS;
}
int nvmlDeviceGetPciInfo_v3(int *gpu, Pci *pci) {
    memset(pci, 0, sizeof *pci);
    strcpy(pci->bus_id, "00000000:3B:00.0");
    pci->bus_id[10] += which(gpu);
    return SUCCESS;
}
int nvmlDeviceGetEccMode(int *gpu, unsigned *now, unsigned *later) { *later = 1; GIVE(now, 1); }
int nvmlDeviceGetTotalEccErrors(int *gpu, int type, int counter, unsigned long long *count) {
    GIVE(count, type == 1 && counter == 0 ? 5 : 77); /* uncorrected, volatile */
}
int nvmlDeviceGetSramEccErrorStatus(int *gpu, Sram *sram) {
    if (sram->version != (sizeof *sram | 1 << 24)) return INVALID;
    GIVE(&sram->exceeded, 1);
}
int nvmlDeviceGetRemappedRows(int *gpu, unsigned *c, unsigned *u, unsigned *pending, unsigned *failed) {
    *c = 2; *u = 3; *pending = 1;
    GIVE(failed, 0);
}
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } Memory;
int nvmlDeviceGetMemoryInfo_v2(int *gpu, Memory *memory) {
    if (memory->version != (sizeof *memory | 2 << 24)) return INVALID;
    memory->reserved = 1ull << 29;
    GIVE(&memory->used, 3ull << 30);
}
int nvmlDeviceGetTemperature(int *gpu, int sensor, unsigned *c) { GIVE(c, sensor ? 1 : 41); }
int nvmlDeviceGetTemperatureThreshold(int *gpu, int kind, unsigned *c) {
    GIVE(c, kind == 1 ? 87 : kind == 2 ? 95 : 1);
}
int nvmlDeviceGetCurrentClocksThrottleReasons(int *gpu, unsigned long long *mask) { GIVE(mask, 0x44); }
int nvmlDeviceGetClockInfo(int *gpu, int clock, unsigned *mhz) { GIVE(mhz, clock == 1 ? 345 : 1); }
int nvmlDeviceGetMaxClockInfo(int *gpu, int clock, unsigned *mhz) { GIVE(mhz, clock == 1 ? 1980 : 1); }
int nvmlDeviceGetEnforcedPowerLimit(int *gpu, unsigned *mw) { GIVE(mw, 650000); }
int nvmlDeviceGetPowerManagementDefaultLimit(int *gpu, unsigned *mw) { GIVE(mw, 700000); }
int nvmlDeviceGetCurrPcieLinkWidth(int *gpu, unsigned *lanes) { GIVE(lanes, 8); }
int nvmlDeviceGetMaxPcieLinkWidth(int *gpu, unsigned *lanes) { GIVE(lanes, 16); }
int nvmlDeviceGetNvLinkState(int *gpu, unsigned link, unsigned *active) {
    if (link >= 18) return INVALID;
    GIVE(active, link != 4);
}
int nvmlDeviceGetNvLinkErrorCounter(int *gpu, unsigned link, int kind, unsigned long long *count) {
    GIVE(count, kind == 1 && link == 4 ? 6 : 0); /* recoveries */
}
int nvmlDeviceGetGpuFabricInfoV(int *gpu, Fabric *fabric) {
    if (fabric->version != (sizeof *fabric | 2 << 24)) return INVALID;
    fabric->status = 0;
    GIVE(&fabric->state, 3);
}
int nvmlDeviceGetFieldValues(int *gpu, int count, Field *values) {
    for (int i = 0; i < count; i++) {
        values[i].result = answers(gpu);
        values[i].type = values[i].field == 230 ? 5 : 1;
        if (values[i].field == 230) values[i].value.si = 2; else values[i].value.ui = 52;
    }
    return SUCCESS;
}
