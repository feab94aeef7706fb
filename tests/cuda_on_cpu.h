// CUDA's execution model on the CPU, for tests of kernels where there is no GPU: g++ -include cuda_on_cpu.h kernel.cu.
//
// Every CUDA thread is a fiber; a fiber runs until a barrier, a shuffle or PAUSE().  Barriers are real: a block goes on
// when all its threads have arrived, and threads that wait for ever are an error.  Which fiber runs first is the caller's
// choice, so that a missing barrier shows as a result that depends on the order.  Shared memory starts as NaN bytes and
// is followed by a fence that must not change.  Blocks run one after the other, or together (cooperative launch).
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <type_traits>
#include <typeinfo>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __restrict__
#define __shared__ static_assert(false, "shared memory only through SHARED")
#define SHARED(type, name) type *name = reinterpret_cast<type *>(gpu::now->block->shared.data())
#define PAUSE() gpu::yield(false)

struct uint3_ { unsigned x, y, z; };
struct float2 { float x, y; };
struct double2 { double x, y; };
struct alignas(16) float4 { float x, y, z, w; };

#ifndef __x86_64__
#error "fibers are switched by x86-64 instructions"
#endif
// Saves this stack's registers and pointer, goes on where `to` was saved.
asm(R"(
.text
.type gpu_switch, @function
gpu_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
)");
extern "C" __attribute__((visibility("hidden"))) void gpu_switch(void **from, void *to);

namespace gpu {
constexpr size_t STACK = 64 << 10, FENCE = 64;
constexpr unsigned char FILL = 0xff;

struct Block {
    uint3_ index;
    unsigned threads, arrived = 0, left = 0;
    uint64_t turn = 0;
    int any = 0;  // of __syncthreads_or
    std::vector<unsigned char> shared;
    struct Warp { unsigned arrived = 0; uint64_t turn = 0; unsigned char slots[2][32][16]; };
    std::vector<Warp> warps;
};

struct Fiber {
    void *at;  // its stack pointer
    Block *block;
    unsigned thread;
    bool done = false;
};

inline Fiber *now;
inline void *scheduler;
inline bool moved;  // whether anything but waiting has happened since the last round began
inline const std::pair<void (*)(void *), void *> *body;
inline uint3_ grid_dim, block_dim;

inline void yield(bool progress) {
    moved |= progress;
    gpu_switch(&now->at, scheduler);
}

inline void wait(unsigned &arrived, uint64_t &turn, unsigned all) {
    uint64_t mine = turn;
    moved = true;
    if (++arrived == all) {
        arrived = 0;
        ++turn;
    }
    while (turn == mine) yield(false);
}

inline void enter() {
    body->first(body->second);
    now->done = moved = true;
    gpu_switch(&now->at, scheduler);
}

inline std::string run(std::vector<Block> &blocks, unsigned order) {
    std::vector<Fiber> fibers;
    for (auto &block : blocks)
        for (unsigned t = 0; t < block.threads; ++t) {
            fibers.emplace_back();
            fibers.back().block = &block;
            fibers.back().thread = t;
        }
    for (auto &fiber : fibers) {
        static std::vector<char *> stacks;  // kept: clearing them would cost more than the kernel
        size_t i = &fiber - fibers.data();
        if (i == stacks.size()) stacks.push_back(static_cast<char *>(std::malloc(STACK)));
        const size_t colour = i % 61 * 208;  // so that the stacks' ends do not share a set of the cache
        auto top = reinterpret_cast<void **>((reinterpret_cast<uintptr_t>(stacks[i]) + STACK - colour) & ~uintptr_t(15));
        *--top = nullptr;  // where `enter` would return to
        *--top = reinterpret_cast<void *>(enter);
        for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
        fiber.at = top;
    }
    std::vector<size_t> queue(fibers.size());
    for (size_t i = 0; i < queue.size(); ++i) queue[i] = order % 2 && order < 4 ? queue.size() - 1 - i : i;
    for (unsigned i = queue.size() - 1, seed = order; order > 3 && i; --i) {
        seed = seed * 1664525u + 1013904223u;
        std::swap(queue[i], queue[(seed >> 8) % (i + 1)]);
    }
    const bool ahead = order == 2 || order == 3;  // a warp goes on until it waits for others
    const size_t together = ahead ? 32 : queue.size();
    for (size_t left = fibers.size(); left;) {
        bool waiting = true;
        for (size_t begin = 0; begin < queue.size(); begin += together) {
            int rounds = 0;
            do {
                moved = false;
                for (size_t i = begin; i < queue.size() && i < begin + together; ++i) {
                    now = &fibers[queue[i]];
                    if (now->done) continue;
                    gpu_switch(&scheduler, now->at);
                    left -= now->done;
                }
                waiting &= !moved;
            } while (moved && ahead && ++rounds < 10000);  // it may wait in a loop for what another warp writes
        }
        if (waiting) return "threads wait for ever: a barrier that not all threads of a block or warp reach";
    }
    for (auto &block : blocks)
        for (size_t i = block.shared.size() - FENCE; i < block.shared.size(); ++i)
            if (block.shared[i] != FILL) return "a write beyond the end of shared memory";
    return "";
}

struct Dim {  // threadIdx and its kin, looked up in the running fiber
    unsigned (*get)();
    operator unsigned() const { return get(); }
    operator int() const { return int(get()); }
};

template <typename T> T shuffle(T value, unsigned from) {
    static_assert(sizeof(T) <= 16, "shuffled values have at most 16 bytes");
    auto &warp = now->block->warps[now->thread / 32];
    unsigned lanes = now->block->threads - now->thread / 32 * 32;
    lanes = lanes < 32 ? lanes : 32;
    auto &slots = warp.slots[warp.turn % 2];  // nobody is two shuffles ahead of anybody
    std::memcpy(slots[now->thread % 32], &value, sizeof(T));
    wait(warp.arrived, warp.turn, lanes);
    T other = value;
    if (from < lanes) std::memcpy(&other, slots[from], sizeof(T));
    return other;
}
}  // namespace gpu

struct ThreadIdx { struct { operator int() const { return int(gpu::now->thread); } } x; };
struct BlockIdx {
    struct { operator int() const { return int(gpu::now->block->index.x); } } x;
    struct { operator int() const { return int(gpu::now->block->index.y); } } y;
};
static ThreadIdx threadIdx;
static BlockIdx blockIdx;
#define blockDim gpu::block_dim
#define gridDim gpu::grid_dim

inline void __syncthreads() { gpu::wait(gpu::now->block->arrived, gpu::now->block->turn, gpu::now->block->threads); }
template <typename T> T __shfl_xor_sync(unsigned, T v, int mask) { return gpu::shuffle(v, (gpu::now->thread % 32) ^ mask); }
template <typename T> T __shfl_down_sync(unsigned, T v, int n) { return gpu::shuffle(v, gpu::now->thread % 32 + n); }
template <typename T> T __shfl_sync(unsigned, T v, int lane) { return gpu::shuffle(v, lane % 32); }
inline void __syncwarp(unsigned = ~0u) { gpu::shuffle(0, 0); }
inline int __syncthreads_or(int x) {
    __syncthreads();
    gpu::now->block->any = 0;
    __syncthreads();
    gpu::now->block->any |= x != 0;
    __syncthreads();
    return gpu::now->block->any;  // the next call clears it behind a barrier of its own
}
inline unsigned __ballot_sync(unsigned, int x) {
    unsigned bits = 0;
    for (int lane = 0; lane < 32; ++lane) bits |= unsigned(gpu::shuffle(x != 0, lane)) << lane;
    return bits;
}
inline int __any_sync(unsigned all, int x) { return __ballot_sync(all, x) != 0; }
inline void __threadfence() {}
template <typename T> T __ldg(const T *p) { return *p; }
template <typename T> T __ldcg(const T *p) { return *p; }
inline double __dadd_rn(double x, double y) { return x + y; }
inline long long __double_as_longlong(double x) { long long bits; std::memcpy(&bits, &x, 8); return bits; }
inline double __longlong_as_double(long long bits) { double x; std::memcpy(&x, &bits, 8); return x; }
inline unsigned atomicAdd(unsigned *p, unsigned x) { unsigned old = *p; *p += x; return old; }
inline int atomicAdd(int *p, int x) { int old = *p; *p += x; return old; }
inline int atomicMax(int *p, int x) { int old = *p; *p = old > x ? old : x; return old; }
inline int atomicMin(int *p, int x) { int old = *p; *p = old < x ? old : x; return old; }
using std::fma;
using std::isfinite;
template <typename T> T min(T a, T b) { return b < a ? b : a; }
template <typename T> T max(T a, T b) { return a < b ? b : a; }

namespace gpu {
template <typename T> std::string type_of() {
    using V = std::remove_cv_t<std::remove_pointer_t<T>>;
    std::string kind = std::is_floating_point_v<V> ? "f" : std::is_unsigned_v<V> ? "u" : "i";
    return (std::is_pointer_v<T> ? "*" : "") + kind + std::to_string(sizeof(V));
}

template <typename... A, size_t... I>
void call(void (*kernel)(A...), void **args, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_cv_t<A> *>(args[I])...);
}

template <typename... A>
const char *launch(void (*kernel)(A...), const unsigned *grid, unsigned threads, size_t shared, bool together, unsigned order,
                   void **args) {
    static std::string answer;
    struct Call { void (*kernel)(A...); void **args; } what{kernel, args};
    std::pair<void (*)(void *), void *> work{
        [](void *p) { auto c = static_cast<Call *>(p); call(c->kernel, c->args, std::index_sequence_for<A...>{}); }, &what};
    body = &work;
    grid_dim = {grid[0], grid[1], 1};
    block_dim = {threads, 1, 1};
    std::vector<Block> blocks;
    answer = "";
    for (unsigned y = 0; y < grid[1]; ++y)
        for (unsigned x = 0; x < grid[0]; ++x) {
            Block block;
            block.index = {x, y, 0};
            block.threads = threads;
            block.shared.assign(shared + FENCE, FILL);
            block.warps.resize((threads + 31) / 32);
            blocks.push_back(std::move(block));
            if (!together) {
                answer = run(blocks, order);
                if (!answer.empty()) return answer.c_str();
                blocks.clear();
            }
        }
    if (together) answer = run(blocks, order);
    return answer.c_str();
}

template <typename... A> const char *types(void (*)(A...)) {
    static std::string all = ((type_of<A>() + " ") + ... + std::string());
    return all.c_str();
}
}  // namespace gpu

#define EMULATE(name)                                                                                                       \
    extern "C" const char *launch_##name(const unsigned *grid, unsigned threads, size_t shared, bool together,              \
                                         unsigned order, void **args) {                                                    \
        return gpu::launch(name, grid, threads, shared, together, order, args);                                            \
    }                                                                                                                       \
    extern "C" const char *types_##name() { return gpu::types(name); }
