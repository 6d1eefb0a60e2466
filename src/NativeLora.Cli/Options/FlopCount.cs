using System.Globalization;

namespace NativeLora.Cli.Options;

/// <summary>Numbers of floating-point operations as people write them.</summary>
internal static class FlopCount
{
    /// <summary>Operations of a text such as <c>250G</c>, <c>1.5T</c> or <c>2.5e11</c>.</summary>
    /// <exception cref="InputException">It is none.</exception>
    public static long Parse(string option, string text)
    {
        var number = text.Trim();
        if (number.EndsWith("FLOP", StringComparison.OrdinalIgnoreCase))
            number = number[..^4].Trim();
        var factor = number.Length == 0 ? 0 : char.ToUpperInvariant(number[^1]) switch
        {
            'M' => 1e6,
            'G' => 1e9,
            'T' => 1e12,
            'P' => 1e15,
            _ => 1.0,
        };
        return factor > 0 && double.TryParse(factor > 1 ? number[..^1].Trim() : number, NumberStyles.AllowDecimalPoint | NumberStyles.AllowExponent, CultureInfo.InvariantCulture, out var value)
            && value * factor is >= 1 and < 9e18
            ? (long)(value * factor)
            : throw new InputException($"{option} {text}: give operations of a step such as 250G, 1.5T or 2.5e11");
    }
}
