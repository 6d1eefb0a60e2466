using NativeLora.Checkpoints;
using NativeLora.Tests.Checkpoints;
using NativeLora.Training;

namespace NativeLora.Tests.Faults;

/// <summary>Files that belong together, and what killed processes leave.</summary>
public sealed class AtomicFileFaultTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    /// <summary>A number that no process of this machine has: the largest on Linux is 4,194,304.</summary>
    private const string Nobody = "2147483646";

    private string Write(string name, string text) => _folder.Write(name, text);

    private string StaleOf(string name)
    {
        var now = Path.GetFileName(Temporary.Of(_folder.File(name)));
        return now.Replace($"-{Environment.ProcessId}.", $"-{Nobody}.", StringComparison.Ordinal);
    }

    [Fact]
    public void What_a_killed_process_left_goes_with_the_next_write_of_the_same_file()
    {
        var (stale, other, running) = (Write(StaleOf("a.json"), "half"), Write(StaleOf("b.json"), "half"), Temporary.Of(_folder.File("a.json")));
        File.WriteAllText(running, "being written");
        var elsewhere = Write($".a.json.00000000-{Nobody}.0123.tmp", "of another machine");
        AtomicFile.WriteAllText(_folder.File("a.json"), "{}");
        Assert.False(File.Exists(stale));
        Assert.True(File.Exists(other), "it belongs to another file");
        Assert.True(File.Exists(running), "its process is running");
        Assert.True(File.Exists(elsewhere), "nobody here knows whether its process is running");
    }

    [Fact]
    public void Where_one_of_several_files_fails_the_old_ones_stay()
    {
        var (tensors, settings) = (Write("tensors", "old"), Write("settings", "old"));
        var error = Assert.Throws<RunException>(() => AtomicFile.WriteTogether([new(tensors, AtomicFile.Text("new")), new(settings, _ => throw new IOException("No space left on device"))]));
        Assert.Contains("settings: cannot be written: No space left on device", error.Message, StringComparison.Ordinal);
        Assert.Equal(["old", "old"], [File.ReadAllText(tensors), File.ReadAllText(settings)]);
        Assert.Equal(2, Directory.GetFileSystemEntries(_folder.Path).Length);
    }

    /// <summary>Where the second rename cannot be made, the settings are gone rather than beside tensors that are not theirs.</summary>
    [Fact]
    public void New_tensors_never_stand_beside_old_settings()
    {
        var (settings, blocked) = (Write("settings", "old"), Directory.CreateDirectory(_folder.File("tensors")).FullName);
        Write("tensors/in-the-way", "");
        Assert.Throws<RunException>(() => AtomicFile.WriteTogether([new(blocked, AtomicFile.Text("new")), new(settings, AtomicFile.Text("new"))]));
        Assert.False(File.Exists(settings));
        // Where nothing changes, nothing is taken away.
        var (one, two) = (Write("one", "same"), Write("two", "same"));
        AtomicFile.WriteTogether([new(one, AtomicFile.Text("same")), new(two, AtomicFile.Text("same"))]);
        Assert.Equal(["same", "same"], [File.ReadAllText(one), File.ReadAllText(two)]);
    }

    [Fact]
    public void A_folder_appears_when_it_is_complete_and_the_remains_of_a_killed_one_go()
    {
        var stale = Directory.CreateDirectory(_folder.File(StaleOf("model"))).FullName;
        File.WriteAllText(Path.Combine(stale, "model.safetensors"), "half");
        using (var folder = new StagedFolder(_folder.File("model")))
        {
            Assert.False(Directory.Exists(stale));
            File.WriteAllText(Path.Combine(folder.Path, "config.json"), "{}");
            Assert.False(Directory.Exists(_folder.File("model")));
            folder.Commit();
        }
        Assert.True(File.Exists(_folder.File("model/config.json")));
        Assert.Single(Directory.GetFileSystemEntries(_folder.Path));
        Assert.Contains("not an empty folder", Assert.Throws<InputException>(() => new StagedFolder(_folder.File("model"))).Message, StringComparison.Ordinal);
    }

    /// <summary>Killed between the two renames that replace a checkpoint by a newer one of the same step.</summary>
    [Fact]
    public void A_checkpoint_that_was_being_replaced_comes_back()
    {
        var store = new CheckpointStore(_folder.Path, 1);
        Directory.CreateDirectory(_folder.File("checkpoints", ".replaced-12"));
        Directory.CreateDirectory(_folder.File("checkpoints", ".unfinished-12"));
        store.RemoveUnfinished();
        Assert.Equal([12], store.Steps());
        Directory.CreateDirectory(_folder.File("checkpoints", ".replaced-12"));
        store.RemoveUnfinished();
        Assert.Equal([12], store.Steps());
        Assert.Single(Directory.GetFileSystemEntries(_folder.File("checkpoints")));
    }

    [Theory]
    [InlineData("""{"a\u0000b": "0"}""")]
    [InlineData("""{"trainer_state.json": 5}""")]
    [InlineData("[]")]
    [InlineData("")]
    public void A_list_of_sums_that_is_none_counts_as_damage(string sums)
    {
        Directory.CreateDirectory(_folder.File("checkpoints", "step-3"));
        Write("checkpoints/step-3/files.json", sums);
        Assert.NotNull(new CheckpointStore(_folder.Path, 1).Damage(3));
    }

    [Theory]
    [InlineData("\"step\": -1")]
    [InlineData("\"batch_index\": -5")]
    [InlineData("\"metrics_bytes\": -1")]
    [InlineData("\"seconds\": 1e300")]
    public void A_state_with_impossible_numbers_is_refused(string field)
    {
        Write(TrainerState.File, $"{{{field}}}");
        Assert.Contains("the file is damaged; remove this checkpoint", Assert.Throws<InputException>(() => TrainerState.Read(_folder.Path)).Message, StringComparison.Ordinal);
    }
}
