using NativeLora.Data;
using NativeLora.Tests.Checkpoints;

namespace NativeLora.Tests.Faults;

/// <summary>Names in files from outside lead to no file outside.</summary>
public sealed class PathEscapeTests
{
    [Theory]
    [InlineData("3", "../../../secret.png")]
    [InlineData("3", "/etc/passwd")]
    [InlineData("3", "..")]
    [InlineData("3", "a\\\\b.png")]
    [InlineData("3", "a\\u0000.png")]
    [InlineData("../3", "image.png")]
    public void A_data_set_names_pictures_of_its_own_folder_only(string id, string image)
    {
        using var folder = new TemporaryFolder();
        folder.Write("secret.png", "not yours");
        Directory.CreateDirectory(folder.File("data", "images", "train", "3"));
        File.WriteAllText(folder.File("data", "problems.json"),
            $$$"""{"{{{id}}}": {"question": "Where?", "choices": ["here", "there"], "answer": 0, "hint": "", "image": "{{{image}}}", "split": "train"}}""");
        var error = Assert.Throws<InputException>(() => ScienceQaDataset.Load(new ScienceQaSpec { Path = folder.File("data") }));
        Assert.Matches("no plain file name|can name no folder", error.Message);
        Assert.DoesNotContain('\n', error.Message);
    }
}
