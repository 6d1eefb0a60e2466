using System.Globalization;

namespace NativeLora.Faults;

/// <summary>What the program is told to do.</summary>
internal sealed record Arguments(string Campaign, int Seed, double Scale, TimeSpan Length, string Output, string[]? Jobs)
{
    private const string Usage = "usage: --campaign all|NAME|soak-train|soak-serve [--seed N] [--scale X] [--minutes X] [--output DIR] [--jobs COMMAND,COMMAND]";

    /// <summary>Null, and a line on the error stream, if they make no sense.</summary>
    public static Arguments? Parse(string[] args)
    {
        var given = new Arguments("", 1, 1, TimeSpan.FromMinutes(60), Path.Combine("bench", "results"), null);
        for (var i = 0; i + 1 < args.Length; i += 2)
        {
            var value = args[i + 1];
            var number = double.TryParse(value, NumberStyles.Float, CultureInfo.InvariantCulture, out var parsed) && parsed is > 0 and < 1e6 ? parsed : double.NaN;
            given = args[i] switch
            {
                "--campaign" => given with { Campaign = value },
                "--seed" when number >= 1 => given with { Seed = (int)number },
                "--scale" when number > 0 => given with { Scale = number },
                "--minutes" when number > 0 => given with { Length = TimeSpan.FromMinutes(number) },
                "--output" => given with { Output = value },
                "--jobs" => given with { Jobs = value.Split(',') },
                _ => given with { Campaign = "" },
            };
        }
        if (args.Length % 2 == 0 && given.Campaign.Length > 0)
            return given;
        Console.Error.WriteLine(Usage);
        return null;
    }
}
