namespace NativeLora.Tensors;

/// <summary>Element types of stored tensors. Block-quantized types hold 32 values a block.</summary>
public enum ElementType
{
    /// <summary>IEEE 754 binary32.</summary>
    F32,

    /// <summary>IEEE 754 binary16.</summary>
    F16,

    /// <summary>bfloat16: the upper half of a binary32.</summary>
    BF16,

    /// <summary>IEEE 754 binary64.</summary>
    F64,

    /// <summary>Signed 64-bit integer.</summary>
    I64,

    /// <summary>Signed 32-bit integer.</summary>
    I32,

    /// <summary>Signed 16-bit integer.</summary>
    I16,

    /// <summary>Signed 8-bit integer.</summary>
    I8,

    /// <summary>Unsigned 8-bit integer.</summary>
    U8,

    /// <summary>One byte, 0 or 1.</summary>
    Bool,

    /// <summary>GGUF: 32 values, one fp16 scale and 32 signed bytes (34 bytes).</summary>
    Q8_0,

    /// <summary>GGUF: 32 values, one fp16 scale and 16 bytes of nibbles (18 bytes).</summary>
    Q4_0,

    /// <summary>GGUF: 32 values, fp16 scale and minimum, 16 bytes of nibbles (20 bytes).</summary>
    Q4_1,
}

/// <summary>Sizes of element types.</summary>
public static class ElementTypes
{
    /// <summary>Bytes that <paramref name="count"/> elements take. Block types need whole blocks of 32.</summary>
    /// <exception cref="ArgumentException">The count is negative or not a multiple of the block.</exception>
    /// <exception cref="OverflowException">The size does not fit 63 bits.</exception>
    public static long Bytes(this ElementType type, long count)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(count);
        var (block, bytes) = Block(type);
        if (count % block != 0)
            throw new ArgumentException($"{count} elements are not whole blocks of {block} ({type})", nameof(count));
        return checked(count / block * bytes);
    }

    /// <summary>Values and bytes of one block; (1, size) for plain types.</summary>
    public static (int Values, int Bytes) Block(ElementType type) => type switch
    {
        ElementType.F32 or ElementType.I32 => (1, 4),
        ElementType.F16 or ElementType.BF16 or ElementType.I16 => (1, 2),
        ElementType.F64 or ElementType.I64 => (1, 8),
        ElementType.I8 or ElementType.U8 or ElementType.Bool => (1, 1),
        ElementType.Q8_0 => (32, 34),
        ElementType.Q4_0 => (32, 18),
        ElementType.Q4_1 => (32, 20),
        _ => throw new ArgumentOutOfRangeException(nameof(type)),
    };
}
