using System.Globalization;
using Spectre.Console;

namespace NativeLora.Cli.Show;

/// <summary>
/// What a person sees: colours and boxes in a terminal, plain aligned lines where the output goes to a file, nothing but the JSON document
/// with <c>--json</c>. Spectre.Console heeds NO_COLOR.
/// </summary>
internal sealed class Ui(bool json)
{
    private readonly bool _rich = !json && !Console.IsOutputRedirected && !IsRelayed;

    public bool Json => json;

    /// <summary>Whether mpirun passes on what is written.</summary>
    public static bool IsRelayed { get; } = Environment.GetEnvironmentVariable("OMPI_COMM_WORLD_RANK") is not null;

    /// <summary>Whether another process says all that there is to say.</summary>
    public static bool IsSilent { get; set; }

    /// <summary>A line of text, shown as it is.</summary>
    public void Line(string text = "") => Markup(Spectre.Console.Markup.Escape(text));

    /// <summary>A line with Spectre's markup.</summary>
    public void Markup(string markup)
    {
        if (json || IsSilent)
            return;
        if (_rich)
            AnsiConsole.MarkupLine(markup);
        else
            Console.Out.WriteLine(Spectre.Console.Markup.Remove(markup));
    }

    /// <summary>A name and what belongs to it.</summary>
    public void Fact(string name, string text) => Markup($"[grey]{name,-11}[/] {Spectre.Console.Markup.Escape(text)}");

    /// <summary>A title over what follows.</summary>
    public void Title(string text)
    {
        Line();
        Markup($"[bold]{Spectre.Console.Markup.Escape(text)}[/]");
    }

    /// <summary>One line on the error stream that does not stop the work.</summary>
    public static void Warn(string text) => Tell($"warning: {text.ReplaceLineEndings(" ")}");

    /// <summary>One line on the error stream that tells what was taken for granted.</summary>
    public static void Note(string text) => Tell($"note: {text.ReplaceLineEndings(" ")}");

    private static void Tell(string line)
    {
        if (!IsSilent)
            Console.Error.WriteLine(line);
    }

    /// <summary>The document that <c>--json</c> asks for.</summary>
    public static void WriteJson(string document)
    {
        if (!IsSilent)
            Console.Out.WriteLine(document.TrimEnd());
    }

    /// <summary>Columns, aligned to the right, or to the left where the head begins with "&lt;". Cells may have markup.</summary>
    public void Table(IReadOnlyList<string> heads, IReadOnlyList<IReadOnlyList<string>> rows)
    {
        if (json)
            return;
        bool[] left = [.. heads.Select(h => h.StartsWith('<'))];
        string[] names = [.. heads.Select((h, c) => left[c] ? h[1..] : h)];
        int[] widths = [.. names.Select((name, c) => Math.Max(name.Length, rows.Max(r => Length(r[c]))))];
        Markup(Row([.. names.Select((name, c) => name.Length == 0 ? name : $"[underline]{name}[/]")]));
        foreach (var row in rows)
            Markup(Row(row));

        string Row(IReadOnlyList<string> cells) => string.Join("  ", cells.Select((cell, c) =>
        {
            var space = new string(' ', widths[c] - Length(cell));
            return left[c] ? cell + space : space + cell;
        })).TrimEnd();

        // Spectre takes blanks for nothing.
        static int Length(string markup) => string.IsNullOrWhiteSpace(markup) ? markup.Length : Spectre.Console.Markup.Remove(markup).Length;
    }

    /// <summary>A bar of up to <paramref name="width"/> characters in eighths, for a share from 0 to 1.</summary>
    public static string Bar(double share, int width)
    {
        var eighths = (int)Math.Round(Math.Clamp(share, 0, 1) * width * 8);
        var bar = new string('█', eighths / 8);
        return eighths % 8 == 0 ? bar : bar + (char)('█' + 8 - eighths % 8);
    }

    /// <summary>12,345.</summary>
    public static string Count(long n) => n.ToString("N0", CultureInfo.InvariantCulture);

    /// <summary>1 sample, 2 samples.</summary>
    public static string Count(long n, string what) => $"{Count(n)} {what}{(n == 1 ? "" : "s")}";

    /// <summary>Bytes as MiB.</summary>
    public static string MiB(long bytes) => bytes == 0 ? "0" : bytes < 52429
        ? string.Create(CultureInfo.InvariantCulture, $"{bytes / 1024.0:0.0} KiB")
        : string.Create(CultureInfo.InvariantCulture, $"{bytes / 1048576.0:N1} MiB");

    /// <summary>Bytes as GiB, for what a machine has.</summary>
    public static string GiB(long bytes) => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1073741824.0:N1} GiB");

    /// <summary>Operations as GFLOP.</summary>
    public static string Flops(double flops) => flops == 0 ? "0" : flops < 5e7
        ? string.Create(CultureInfo.InvariantCulture, $"{flops / 1e6:0.0} MFLOP")
        : string.Create(CultureInfo.InvariantCulture, $"{flops / 1e9:N1} GFLOP");

    /// <summary>What <paramref name="part"/> saves of <paramref name="whole"/>, in percent.</summary>
    public static string Saves(double part, double whole) =>
        whole == 0 || part == whole ? "–" : string.Create(CultureInfo.InvariantCulture, $"{100 * (part - whole) / whole:+0.0;−0.0;0.0} %");
}
