using System.Numerics.Tensors;
using System.Runtime.InteropServices;
using NativeLora.Tensors;

namespace NativeLora.Checkpoints;

/// <summary>Stored elements to fp32 or int64, and fp32 to the stored half types.</summary>
internal static unsafe class Widening
{
    // A multiple of every block size; keeps the source spans far below 2 GiB.
    private const int Chunk = 1 << 20;

    /// <summary>Widens a whole tensor.</summary>
    /// <param name="type">Type of the source.</param>
    /// <param name="source">As many bytes as <c>type.Bytes(target.Length)</c>.</param>
    /// <param name="target">Receives the values.</param>
    public static void ToFloat32(ElementType type, byte* source, Span<float> target)
    {
        for (var at = 0; at < target.Length; at += Chunk)
        {
            var part = target.Slice(at, Math.Min(Chunk, target.Length - at));
            ToFloat32(type, new ReadOnlySpan<byte>(source + type.Bytes(at), (int)type.Bytes(part.Length)), part);
        }
    }

    /// <summary>Widens a piece below 2 GiB.</summary>
    public static void ToFloat32(ElementType type, ReadOnlySpan<byte> source, Span<float> target)
    {
        if (source.Length != type.Bytes(target.Length))
            throw new ArgumentException($"{source.Length} bytes for {target.Length} elements of {type}");
        switch (type)
        {
            case ElementType.F32:
                source.CopyTo(MemoryMarshal.AsBytes(target));
                break;
            case ElementType.F16:
                TensorPrimitives.ConvertToSingle(MemoryMarshal.Cast<byte, Half>(source), target);
                break;
            case ElementType.BF16:
                var halves = MemoryMarshal.Cast<byte, ushort>(source);
                for (var i = 0; i < target.Length; i++)
                    target[i] = BitConverter.UInt32BitsToSingle((uint)halves[i] << 16);
                break;
            case ElementType.F64:
                Convert(MemoryMarshal.Cast<byte, double>(source), target);
                break;
            case ElementType.I64:
                Convert(MemoryMarshal.Cast<byte, long>(source), target);
                break;
            case ElementType.I32:
                Convert(MemoryMarshal.Cast<byte, int>(source), target);
                break;
            case ElementType.I16:
                Convert(MemoryMarshal.Cast<byte, short>(source), target);
                break;
            case ElementType.I8:
                Convert(MemoryMarshal.Cast<byte, sbyte>(source), target);
                break;
            case ElementType.U8 or ElementType.Bool:
                Convert(source, target);
                break;
            default:
                GgufBlocks.Dequantize(type, source, target);
                break;
        }
    }

    /// <summary>Integers of any width to int64; false if the type is not an integer type.</summary>
    public static bool TryToInt64(ElementType type, ReadOnlySpan<byte> source, Span<long> target)
    {
        if (source.Length != type.Bytes(target.Length))
            throw new ArgumentException($"{source.Length} bytes for {target.Length} elements of {type}");
        switch (type)
        {
            case ElementType.I64:
                MemoryMarshal.Cast<byte, long>(source).CopyTo(target);
                return true;
            case ElementType.I32:
                Convert(MemoryMarshal.Cast<byte, int>(source), target);
                return true;
            case ElementType.I16:
                Convert(MemoryMarshal.Cast<byte, short>(source), target);
                return true;
            case ElementType.I8:
                Convert(MemoryMarshal.Cast<byte, sbyte>(source), target);
                return true;
            case ElementType.U8 or ElementType.Bool:
                Convert(source, target);
                return true;
            default:
                return false;
        }
    }

    /// <summary>fp32 to bfloat16, to the nearest, ties to even; a NaN stays a NaN.</summary>
    public static ushort ToBFloat16(float value)
    {
        var bits = BitConverter.SingleToUInt32Bits(value);
        if (float.IsNaN(value))
            return (ushort)((bits >> 16) | 0x40);
        return (ushort)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
    }

    private static void Convert<TFrom, TTo>(ReadOnlySpan<TFrom> source, Span<TTo> target)
        where TFrom : System.Numerics.INumberBase<TFrom> where TTo : System.Numerics.INumberBase<TTo> =>
        TensorPrimitives.ConvertTruncating(source, target);
}
