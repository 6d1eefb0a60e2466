using System.Buffers.Binary;
using NativeLora.Tensors;

namespace NativeLora.Checkpoints;

/// <summary>The block formats of GGUF: 32 values share a scale (and in Q4_1 a minimum) in fp16.</summary>
internal static class GgufBlocks
{
    public const int Values = 32;

    /// <summary>Expands whole blocks, with the products and sums in fp32.</summary>
    public static void Dequantize(ElementType type, ReadOnlySpan<byte> source, Span<float> target)
    {
        var (values, bytes) = ElementTypes.Block(type);
        if (values != Values || target.Length % Values != 0 || source.Length != target.Length / Values * bytes)
            throw new ArgumentException($"{source.Length} bytes of {type} do not hold {target.Length} values");
        for (var block = 0; block < target.Length / Values; block++)
        {
            var from = source.Slice(block * bytes, bytes);
            var to = target.Slice(block * Values, Values);
            var scale = (float)BinaryPrimitives.ReadHalfLittleEndian(from);
            switch (type)
            {
                case ElementType.Q8_0:
                    for (var i = 0; i < Values; i++)
                        to[i] = scale * (sbyte)from[2 + i];
                    break;
                case ElementType.Q4_0:
                    // The low nibbles are the first half of the block, the high ones the second.
                    for (var i = 0; i < 16; i++)
                    {
                        to[i] = scale * ((from[2 + i] & 15) - 8);
                        to[i + 16] = scale * ((from[2 + i] >> 4) - 8);
                    }
                    break;
                case ElementType.Q4_1:
                    var minimum = (float)BinaryPrimitives.ReadHalfLittleEndian(from[2..]);
                    for (var i = 0; i < 16; i++)
                    {
                        to[i] = (scale * (from[4 + i] & 15)) + minimum;
                        to[i + 16] = (scale * (from[4 + i] >> 4)) + minimum;
                    }
                    break;
                default:
                    throw new ArgumentOutOfRangeException(nameof(type));
            }
        }
    }
}
