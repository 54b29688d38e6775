// embedding.metal - token and position tables, and picking rows.
//
//   embedding_forward          out[n, c] = weight[tokens[n], c]
//   positional_embedding_add   x[n, c]  += weight[positions[n], c]
//   gather_rows                out[m, c] = x[rows[m], c]
//
// Shapes    weight [vocab, C] (or [n_positions, C]), tokens, positions [N], rows [M], out and x [N, C]; out, x float.
// Dispatch  threads (N, C), threadgroup (1, min(C rounded up to 32, 1024)): a row's channels lie in y, neighbouring
//           threads touch neighbouring channels. No threadgroup memory.
// Assumes   every index lies inside its table: the host checks tokens, positions and rows.
#include <metal_stdlib>
#include "storage.h"
using namespace metal;

template <typename T>
kernel void embed(
    device const T*   weight [[buffer(0)]],
    device const int* tokens [[buffer(1)]],
    device float*     out    [[buffer(2)]],
    constant int&     C      [[buffer(3)]],
    uint2 gid [[thread_position_in_grid]])
{
    const uint n = gid.x, c = gid.y;
    if (c >= uint(C)) return;
    out[ulong(n) * C + c] = float(weight[ulong(tokens[n]) * C + c]);
}
template [[host_name("embedding_forward")]]      kernel decltype(embed<float>)  embed<float>;
template [[host_name("embedding_forward_f16")]]  kernel decltype(embed<half>)   embed<half>;
template [[host_name("embedding_forward_bf16")]] kernel decltype(embed<bfloat>) embed<bfloat>;

template <typename T>
kernel void embed_position(
    device const T*   weight    [[buffer(0)]],
    device const int* positions [[buffer(1)]],
    device float*     x         [[buffer(2)]],
    constant int&     C         [[buffer(3)]],
    uint2 gid [[thread_position_in_grid]])
{
    const uint n = gid.x, c = gid.y;
    if (c >= uint(C)) return;
    x[ulong(n) * C + c] += float(weight[ulong(positions[n]) * C + c]);
}
template [[host_name("positional_embedding_add")]]      kernel decltype(embed_position<float>)  embed_position<float>;
template [[host_name("positional_embedding_add_f16")]]  kernel decltype(embed_position<half>)   embed_position<half>;
template [[host_name("positional_embedding_add_bf16")]] kernel decltype(embed_position<bfloat>) embed_position<bfloat>;

// The rows whose logits are wanted, out of a batch's residual stream.
kernel void gather_rows(
    device const float* x    [[buffer(0)]],
    device const int*   rows [[buffer(1)]],
    device float*       out  [[buffer(2)]],
    constant int&       C    [[buffer(3)]],
    uint2 gid [[thread_position_in_grid]])
{
    const uint m = gid.x, c = gid.y;
    if (c >= uint(C)) return;
    out[ulong(m) * C + c] = x[ulong(rows[m]) * C + c];
}

// Four channels a thread. C % 4 == 0; threads (N, C / 4), threadgroup (1, min(C / 4 rounded up to 32, 1024)).
template <typename T>
kernel void embed_v4(
    device const T*   weight [[buffer(0)]],
    device const int* tokens [[buffer(1)]],
    device float*     out    [[buffer(2)]],
    constant int&     C      [[buffer(3)]],
    uint2 gid [[thread_position_in_grid]])
{
    const uint n = gid.x, c = gid.y * 4;
    if (c >= uint(C)) return;
    store4(out + ulong(n) * C + c, load4(weight + ulong(tokens[n]) * C + c));
}
template [[host_name("embedding_forward_v4")]]      kernel decltype(embed_v4<float>)  embed_v4<float>;
template [[host_name("embedding_forward_f16_v4")]]  kernel decltype(embed_v4<half>)   embed_v4<half>;
template [[host_name("embedding_forward_bf16_v4")]] kernel decltype(embed_v4<bfloat>) embed_v4<bfloat>;
