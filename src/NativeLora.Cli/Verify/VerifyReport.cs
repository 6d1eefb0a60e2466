using System.Globalization;

namespace NativeLora.Cli.Verify;

/// <summary>Prints a line a quantity and remembers whether all passed.</summary>
internal sealed class VerifyReport(TextWriter output)
{
    public int Passed { get; private set; }

    public int Failed { get; private set; }

    public bool AllPassed => Failed == 0 && Passed > 0;

    /// <summary>CASE VARIANT quantity error tolerance pass|FAIL. An error that is not a number fails.</summary>
    public void Line(string name, string variant, string quantity, double error, double tolerance)
    {
        var passes = error <= tolerance;
        Count(passes);
        output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{name} {variant} {quantity} {error:0.0e+00} {tolerance:0.0e+00} {(passes ? "pass" : "FAIL")}"));
    }

    /// <summary>A line that is not a quantity.</summary>
    public void Note(string text) => output.WriteLine(text);

    /// <summary>Something that is equal or not.</summary>
    public void Exact(string name, string variant, string quantity, bool equal) => Line(name, variant, quantity, equal ? 0 : 1, 0);

    /// <summary>Something this engine cannot do yet: counts as a failure.</summary>
    public void Unsupported(string name, string variant, string reason)
    {
        Count(false);
        output.WriteLine($"{name} {variant} {Word(reason)} - - UNSUPPORTED");
    }

    /// <summary>A case that could not be run.</summary>
    public void Error(string name, string variant, string message)
    {
        Count(false);
        output.WriteLine($"{name} {variant} error:{Word(message)} - - FAIL");
    }

    /// <summary>A message as one column.</summary>
    private static string Word(string message) => string.Join('_', message.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries));

    private void Count(bool passed)
    {
        if (passed)
            Passed++;
        else
            Failed++;
    }
}

/// <summary>Distances of what this engine computes from a golden.</summary>
internal static class Distance
{
    /// <summary>Relative L2 distance; infinite if the lengths differ.</summary>
    public static double RelativeL2(ReadOnlySpan<float> got, ReadOnlySpan<float> wanted)
    {
        if (got.Length != wanted.Length)
            return double.PositiveInfinity;
        double difference = 0, norm = 0;
        for (var i = 0; i < got.Length; i++)
        {
            var d = (double)got[i] - wanted[i];
            difference += d * d;
            norm += (double)wanted[i] * wanted[i];
        }
        return norm == 0 ? Math.Sqrt(difference) : Math.Sqrt(difference / norm);
    }

    /// <summary>L2 norm.</summary>
    public static double Norm(ReadOnlySpan<float> values)
    {
        double sum = 0;
        foreach (var v in values)
            sum += (double)v * v;
        return Math.Sqrt(sum);
    }

    /// <summary>Relative difference of two numbers.</summary>
    public static double Relative(double got, double wanted) => wanted == 0 ? Math.Abs(got) : Math.Abs(got - wanted) / Math.Abs(wanted);
}

/// <summary>The worst of many errors, and where it was.</summary>
internal sealed class Worst
{
    public double Error { get; private set; }

    public string Where { get; private set; } = "";

    public int Count { get; private set; }

    public void Add(double error, string where)
    {
        if (Count++ == 0 || error > Error || double.IsNaN(error))
            (Error, Where) = (error, where);
    }
}
