using System.CommandLine;
using NativeLora.Checkpoints;
using NativeLora.Cli.Options;
using NativeLora.Cli.Report;
using NativeLora.Cli.Show;

namespace NativeLora.Cli.Commands;

/// <summary><c>nativelora report</c>: one HTML page from what runs left in their folders.</summary>
internal static class ReportCommand
{
    public static Command Create()
    {
        var runs = new Argument<string[]>("RUN") { Description = "folders that select, train, run or study wrote, in any mixture", Arity = ArgumentArity.OneOrMore };
        var output = new Option<string?>("--output", "-o") { Description = "the page, one file that needs no other: such as report.html", HelpName = "FILE" };
        var pictures = new Option<string?>("--pictures") { Description = "folder for the pictures as SVG and PNG, the tables as CSV, and all numbers as report.json (default: FILE without its ending, and -files)", HelpName = "DIR" };
        var title = new Option<string>("--title") { Description = "title of the page", DefaultValueFactory = _ => "NativeLora report", HelpName = "TEXT" };
        var command = new Command("report", "Make one HTML page of runs: layers and their similarity, memory, time, learning curves, strategies.");
        command.Arguments.Add(runs);
        foreach (var option in (Option[])[output, pictures, title])
            command.Options.Add(option);
        command.SetAction(parsed => Run(parsed.GetValue(runs)!, parsed.GetValue(output), parsed.GetValue(pictures), parsed.GetValue(title)!, new Ui(json: false)));
        return command;
    }

    private static int Run(string[] paths, string? output, string? pictures, string title, Ui ui)
    {
        if (string.IsNullOrWhiteSpace(output))
            throw new InputException("no page is named: give --output FILE, such as --output report.html");
        if (Directory.Exists(output))
            throw new InputException($"{output}: is a folder; give the name of a file, such as {Path.Combine(output, "report.html")}");
        var folder = pictures ?? Path.Combine(Path.GetDirectoryName(output) ?? "", $"{Path.GetFileNameWithoutExtension(output)}-files");
        var runs = RunInput.ReadAll(paths);
        AtomicFile.CheckFolder(Path.GetDirectoryName(Path.GetFullPath(output))!);
        AtomicFile.CheckFolder(folder);
        foreach (var run in runs)
            if (Path.GetFullPath(folder) == Path.GetFullPath(run.Path))
                throw new InputException($"{folder}: is a run, which the files of the report would be mixed with; give another folder with --pictures");
        var page = ReportBuilder.Build(runs, Words.Clean(title));
        string html;
        int files;
        try
        {
            html = HtmlPage.Of(page);
            files = ReportFiles.Write(page, folder);
        }
        catch (Exception e) when (Missing(e) is { } library)
        {
            throw new RunException($"no page: the drawing library {library} cannot be loaded here", e);
        }
        AtomicFile.WriteAllText(output, html);
        foreach (var run in runs)
            foreach (var note in run.Notes)
                Ui.Note($"{run.Label}: {note}");
        ui.Fact("report", $"{output}: {Ui.Count(page.Sections.Count, "section")}, {Ui.Count(page.Pictures.Count(), "picture")}, {Ui.MiB(new FileInfo(output).Length)}");
        ui.Fact("files", $"{folder}: {Ui.Count(files, "file")}");
        return 0;
    }

    // The library is native code that may be missing here; that comes as a type that could not be initialized.
    private static string? Missing(Exception? e)
    {
        for (; e is not null; e = e.InnerException)
            if (e is DllNotFoundException)
                return "libSkiaSharp";
        return null;
    }
}
