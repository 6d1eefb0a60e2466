namespace NativeLora.Devices.Cpu;

/// <summary>
/// Dynamic tree quantisation of numbers from -1 (or 0) to 1 to a byte (Dettmers 2016; Dettmers et al. 2022, section 2.2): seven decades,
/// each of twice as many steps as the one below. A code is the place of its value among the 256 in ascending order.
/// </summary>
internal sealed class DynamicCode
{
    private readonly float[] _values;
    private readonly float[] _borders = new float[256];
    private readonly byte[] _first = new byte[1 << 16];

    private DynamicCode(bool signed)
    {
        const int Decades = 7;
        var values = new List<double> { 0, 1 };
        for (var i = 0; i < Decades; i++)
        {
            var steps = 1 << (signed ? i : i + 1);
            for (var s = 0; s < steps; s++)
            {
                // The middle of each step of 0.1 to 1.
                var value = (0.1 + 0.9 * (s + 0.5) / steps) * Math.Pow(10, i - (Decades - 1));
                values.Add(value);
                if (signed)
                    values.Add(-value);
            }
        }
        values.Sort();
        _values = [.. values.Select(v => (float)v)];
        for (var i = 0; i < 255; i++)
            _borders[i] = (float)(0.5 * (values[i] + values[i + 1]));
        _borders[255] = float.PositiveInfinity;
        // Numbers whose upper 16 bits agree are so near each other that at most one border lies between them.
        for (var bits = 0u; bits < _first.Length; bits++)
        {
            var (a, b) = (BitConverter.UInt32BitsToSingle(bits << 16), BitConverter.UInt32BitsToSingle((bits << 16) | 0xffff));
            _first[bits] = Search(float.IsNaN(a) || float.IsNaN(b) ? 0 : Math.Min(a, b));
        }
    }

    private byte Search(float x)
    {
        var code = Array.FindIndex(_borders, border => border >= x);
        return (byte)(code < 0 ? 255 : code);
    }

    /// <summary>For first moments.</summary>
    public static DynamicCode Signed { get; } = new(signed: true);

    /// <summary>For second moments.</summary>
    public static DynamicCode Unsigned { get; } = new(signed: false);

    /// <summary>Value by code.</summary>
    public ReadOnlySpan<float> Values => _values;

    /// <summary>The largest number of each code; the last is infinite.</summary>
    public ReadOnlySpan<float> Borders => _borders;

    /// <summary>The code of the nearest value; of two as near, that of the smaller.</summary>
    public byte Encode(float x)
    {
        int code = _first[BitConverter.SingleToUInt32Bits(x) >> 16];
        var beyond = _borders[code] < x;
        return (byte)(code + System.Runtime.CompilerServices.Unsafe.BitCast<bool, byte>(beyond));
    }
}
